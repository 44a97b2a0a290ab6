//! The nine tables (clause 1.3), their indexes and foreign keys.
//!
//! No identity columns and no defaults: every value comes from the terminal, so that replicas that execute
//! the same statements hold the same rows.

use tokio_postgres::Client;

use crate::error::Error;

/// The tables, referenced ones first.
pub const TABLES: [&str; 9] =
    ["warehouse", "district", "customer", "history", "item", "stock", "orders", "new_order", "order_line"];

/// One statement per table, in the order of [`TABLES`].
pub const CREATE_TABLES: [&str; 9] = [
    "CREATE TABLE warehouse (
        w_id integer PRIMARY KEY,
        w_name varchar(10) NOT NULL,
        w_street_1 varchar(20) NOT NULL,
        w_street_2 varchar(20) NOT NULL,
        w_city varchar(20) NOT NULL,
        w_state char(2) NOT NULL,
        w_zip char(9) NOT NULL,
        w_tax numeric(4,4) NOT NULL,
        w_ytd numeric(14,2) NOT NULL)",
    "CREATE TABLE district (
        d_w_id integer,
        d_id integer,
        d_name varchar(10) NOT NULL,
        d_street_1 varchar(20) NOT NULL,
        d_street_2 varchar(20) NOT NULL,
        d_city varchar(20) NOT NULL,
        d_state char(2) NOT NULL,
        d_zip char(9) NOT NULL,
        d_tax numeric(4,4) NOT NULL,
        d_ytd numeric(14,2) NOT NULL,
        d_next_o_id integer NOT NULL,
        PRIMARY KEY (d_w_id, d_id))",
    "CREATE TABLE customer (
        c_w_id integer,
        c_d_id integer,
        c_id integer,
        c_first varchar(16) NOT NULL,
        c_middle char(2) NOT NULL,
        c_last varchar(16) NOT NULL,
        c_street_1 varchar(20) NOT NULL,
        c_street_2 varchar(20) NOT NULL,
        c_city varchar(20) NOT NULL,
        c_state char(2) NOT NULL,
        c_zip char(9) NOT NULL,
        c_phone char(16) NOT NULL,
        c_since timestamptz NOT NULL,
        c_credit char(2) NOT NULL,
        c_credit_lim numeric(12,2) NOT NULL,
        c_discount numeric(4,4) NOT NULL,
        c_balance numeric(14,2) NOT NULL,
        c_ytd_payment numeric(14,2) NOT NULL,
        c_payment_cnt integer NOT NULL,
        c_delivery_cnt integer NOT NULL,
        c_data varchar(500) NOT NULL,
        PRIMARY KEY (c_w_id, c_d_id, c_id))",
    // 1.3: HISTORY has no primary key.
    "CREATE TABLE history (
        h_c_id integer NOT NULL,
        h_c_d_id integer NOT NULL,
        h_c_w_id integer NOT NULL,
        h_d_id integer NOT NULL,
        h_w_id integer NOT NULL,
        h_date timestamptz NOT NULL,
        h_amount numeric(6,2) NOT NULL,
        h_data varchar(24) NOT NULL)",
    "CREATE TABLE item (
        i_id integer PRIMARY KEY,
        i_im_id integer NOT NULL,
        i_name varchar(24) NOT NULL,
        i_price numeric(5,2) NOT NULL,
        i_data varchar(50) NOT NULL)",
    "CREATE TABLE stock (
        s_w_id integer,
        s_i_id integer,
        s_quantity integer NOT NULL,
        s_dist_01 char(24) NOT NULL,
        s_dist_02 char(24) NOT NULL,
        s_dist_03 char(24) NOT NULL,
        s_dist_04 char(24) NOT NULL,
        s_dist_05 char(24) NOT NULL,
        s_dist_06 char(24) NOT NULL,
        s_dist_07 char(24) NOT NULL,
        s_dist_08 char(24) NOT NULL,
        s_dist_09 char(24) NOT NULL,
        s_dist_10 char(24) NOT NULL,
        s_ytd integer NOT NULL,
        s_order_cnt integer NOT NULL,
        s_remote_cnt integer NOT NULL,
        s_data varchar(50) NOT NULL,
        PRIMARY KEY (s_w_id, s_i_id))",
    "CREATE TABLE orders (
        o_w_id integer,
        o_d_id integer,
        o_id integer,
        o_c_id integer NOT NULL,
        o_entry_d timestamptz NOT NULL,
        o_carrier_id integer,
        o_ol_cnt integer NOT NULL,
        o_all_local integer NOT NULL,
        PRIMARY KEY (o_w_id, o_d_id, o_id))",
    "CREATE TABLE new_order (
        no_w_id integer,
        no_d_id integer,
        no_o_id integer,
        PRIMARY KEY (no_w_id, no_d_id, no_o_id))",
    "CREATE TABLE order_line (
        ol_w_id integer,
        ol_d_id integer,
        ol_o_id integer,
        ol_number integer,
        ol_i_id integer NOT NULL,
        ol_supply_w_id integer NOT NULL,
        ol_delivery_d timestamptz,
        ol_quantity integer NOT NULL,
        ol_amount numeric(6,2) NOT NULL,
        ol_dist_info char(24) NOT NULL,
        PRIMARY KEY (ol_w_id, ol_d_id, ol_o_id, ol_number))",
];

/// Access paths for the customer by last name, and for a customer's latest order.
pub const CREATE_INDEXES: [&str; 2] = [
    "CREATE INDEX customer_by_last_name ON customer (c_w_id, c_d_id, c_last, c_first, c_id)",
    "CREATE INDEX orders_by_customer ON orders (o_w_id, o_d_id, o_c_id, o_id)",
];

/// Foreign keys (1.3), added after the load: checked once per table instead of once per row.
pub const CREATE_FOREIGN_KEYS: [&str; 9] = [
    "ALTER TABLE district ADD CONSTRAINT district_warehouse FOREIGN KEY (d_w_id) REFERENCES warehouse",
    "ALTER TABLE customer ADD CONSTRAINT customer_district FOREIGN KEY (c_w_id, c_d_id) REFERENCES district",
    "ALTER TABLE history ADD CONSTRAINT history_customer \
     FOREIGN KEY (h_c_w_id, h_c_d_id, h_c_id) REFERENCES customer",
    "ALTER TABLE history ADD CONSTRAINT history_district FOREIGN KEY (h_w_id, h_d_id) REFERENCES district",
    "ALTER TABLE stock ADD CONSTRAINT stock_warehouse FOREIGN KEY (s_w_id) REFERENCES warehouse, \
     ADD CONSTRAINT stock_item FOREIGN KEY (s_i_id) REFERENCES item",
    "ALTER TABLE orders ADD CONSTRAINT orders_customer \
     FOREIGN KEY (o_w_id, o_d_id, o_c_id) REFERENCES customer",
    "ALTER TABLE new_order ADD CONSTRAINT new_order_orders \
     FOREIGN KEY (no_w_id, no_d_id, no_o_id) REFERENCES orders",
    "ALTER TABLE order_line ADD CONSTRAINT order_line_orders \
     FOREIGN KEY (ol_w_id, ol_d_id, ol_o_id) REFERENCES orders",
    "ALTER TABLE order_line ADD CONSTRAINT order_line_stock \
     FOREIGN KEY (ol_supply_w_id, ol_i_id) REFERENCES stock",
];

/// Drops whichever tables exist, in one statement since they reference one another.
pub fn drop_tables() -> String {
    format!("DROP TABLE IF EXISTS {}", TABLES.join(", "))
}

/// Which of the nine tables the search path finds.
///
/// # Errors
/// [`Error::Statement`].
pub async fn existing_tables(client: &Client) -> Result<Vec<String>, Error> {
    let names: Vec<&str> = TABLES.to_vec();
    let sql = "SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NOT NULL ORDER BY name";
    let rows =
        client.query(sql, &[&names]).await.map_err(Error::statement("looking for the TPC-C tables"))?;
    rows.iter().map(|row| row.try_get(0).map_err(Error::statement("looking for the TPC-C tables"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_its_statement() {
        for (table, sql) in TABLES.iter().zip(CREATE_TABLES) {
            assert!(sql.starts_with(&format!("CREATE TABLE {table} (")), "{table}");
            assert!(sql.contains("PRIMARY KEY") != (*table == "history"), "{table}");
            let lower = sql.to_lowercase();
            assert!(!lower.contains("serial") && !lower.contains("default"), "{table}");
        }
    }
}
