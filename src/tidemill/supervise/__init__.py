"""Between Airflow and the streams: one pure decision, and the thin parts that carry it out."""
