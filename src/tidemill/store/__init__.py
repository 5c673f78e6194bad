"""Between Spark and the database: connections, migrations, and the one transaction that is a commit."""
