//! PostgreSQL's own programs and drivers, through the proxy, on four real servers.

mod driver;
mod psql;
mod psycopg;
mod raw;
