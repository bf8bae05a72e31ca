#!/bin/sh
# The roles and databases of liq_pipeline. The image runs it when the volume is empty; on a server of your own run it by
# hand, as often as you like: what is there stays, passwords become the ones given.
# liq owns, liq_writer writes rows, liq_reader only reads (Grafana), liq_dagster has Dagster's database.
# Passwords come from the environment, none is built in.
set -eu

psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
  --set owner_password="$DATABASE_PASSWORD" --set reader_password="$READER_PASSWORD" \
  --set writer_password="$WRITER_PASSWORD" --set dagster_password="$DAGSTER_PASSWORD" <<'SQL'
SELECT format('CREATE ROLE %I LOGIN', wanted.name)
  FROM unnest(ARRAY['liq', 'liq_writer', 'liq_dagster', 'liq_reader']) AS wanted (name)
  WHERE wanted.name NOT IN (SELECT rolname FROM pg_roles) \gexec
ALTER ROLE liq PASSWORD :'owner_password';
ALTER ROLE liq_writer PASSWORD :'writer_password';
ALTER ROLE liq_dagster PASSWORD :'dagster_password';
ALTER ROLE liq_reader PASSWORD :'reader_password';
ALTER ROLE liq_reader SET default_transaction_read_only = on;
ALTER ROLE liq_reader SET statement_timeout = '30s';
SELECT wanted.statement
  FROM (VALUES ('CREATE DATABASE liq OWNER liq'), ('CREATE DATABASE dagster OWNER liq_dagster')) AS wanted (statement)
  WHERE split_part(wanted.statement, ' ', 3) NOT IN (SELECT datname FROM pg_database) \gexec
REVOKE CONNECT ON DATABASE liq FROM PUBLIC;
GRANT CONNECT ON DATABASE liq TO liq_writer, liq_reader;
REVOKE CONNECT ON DATABASE dagster FROM PUBLIC;
SQL

# Without TimescaleDB everything works on plain tables.
psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname liq <<'SQL'
SELECT 'CREATE EXTENSION IF NOT EXISTS timescaledb' FROM pg_available_extensions WHERE name = 'timescaledb' \gexec
GRANT USAGE ON SCHEMA public TO liq_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE liq IN SCHEMA public GRANT SELECT ON TABLES TO liq_reader;
SQL
