-- The newest commits of a stream are found without reading its ledger.
ALTER TABLE commits ADD INDEX IF NOT EXISTS by_stream (stream, id)
