#!/bin/sh
# Runs once, when the database volume is empty: the roles and databases of liq_pipeline.
# liq owns and writes; liq_reader only reads (Grafana). Passwords come from the environment, none is built in.
set -eu

psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
  --set owner_password="$DATABASE_PASSWORD" --set reader_password="$READER_PASSWORD" <<'SQL'
CREATE ROLE liq LOGIN PASSWORD :'owner_password';
CREATE ROLE liq_reader LOGIN PASSWORD :'reader_password';
ALTER ROLE liq_reader SET default_transaction_read_only = on;
ALTER ROLE liq_reader SET statement_timeout = '30s';
CREATE DATABASE liq OWNER liq;
CREATE DATABASE dagster OWNER liq;
REVOKE CONNECT ON DATABASE dagster FROM PUBLIC;
SQL

psql --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname liq <<'SQL'
CREATE EXTENSION IF NOT EXISTS timescaledb;
GRANT USAGE ON SCHEMA public TO liq_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE liq IN SCHEMA public GRANT SELECT ON TABLES TO liq_reader;
SQL
