#!/bin/sh
# Runs once, when the database volume is empty: the roles and databases of liq_pipeline.
# liq owns, liq_writer writes rows, liq_reader only reads (Grafana), liq_dagster has Dagster's database.
# Passwords come from the environment, none is built in.
set -eu

psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
  --set owner_password="$DATABASE_PASSWORD" --set reader_password="$READER_PASSWORD" \
  --set writer_password="$WRITER_PASSWORD" --set dagster_password="$DAGSTER_PASSWORD" <<'SQL'
CREATE ROLE liq LOGIN PASSWORD :'owner_password';
CREATE ROLE liq_writer LOGIN PASSWORD :'writer_password';
CREATE ROLE liq_dagster LOGIN PASSWORD :'dagster_password';
CREATE ROLE liq_reader LOGIN PASSWORD :'reader_password';
ALTER ROLE liq_reader SET default_transaction_read_only = on;
ALTER ROLE liq_reader SET statement_timeout = '30s';
CREATE DATABASE liq OWNER liq;
CREATE DATABASE dagster OWNER liq_dagster;
REVOKE CONNECT ON DATABASE liq FROM PUBLIC;
GRANT CONNECT ON DATABASE liq TO liq_writer, liq_reader;
REVOKE CONNECT ON DATABASE dagster FROM PUBLIC;
SQL

psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname liq <<'SQL'
CREATE EXTENSION IF NOT EXISTS timescaledb;
GRANT USAGE ON SCHEMA public TO liq_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE liq IN SCHEMA public GRANT SELECT ON TABLES TO liq_reader;
SQL
