//! PostgreSQL's own programs and drivers, through the proxy, on four real servers.

mod driver;
mod dump;
mod pgbench;
mod psql;
mod psycopg;
mod raw;
mod settings;
mod volumes;
