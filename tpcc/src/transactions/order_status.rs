//! ORDER-STATUS (clause 2.6): a customer's latest order. Read only.

use std::time::SystemTime;

use tokio_postgres::{Client, Statement, Transaction};

use super::{CustomerKey, Ending, Place, Stop, middle};
use crate::random::TpccRandom;

/// Clause 2.6.1.
#[derive(Clone, Debug)]
pub struct Input {
    /// C_W_ID.
    pub warehouse: i32,
    /// C_D_ID.
    pub district: i32,
    /// C_ID or C_LAST.
    pub customer: CustomerKey,
}

impl Input {
    pub(super) fn draw(random: &mut TpccRandom, place: &Place) -> Self {
        let district = Place::any_district(random);
        Self { warehouse: place.warehouse, district, customer: CustomerKey::draw(random, place) }
    }
}

/// Prepared statements.
#[derive(Clone, Debug)]
pub struct Statements {
    customer_by_id: Statement,
    customers_by_name: Statement,
    order: Statement,
    lines: Statement,
}

impl Statements {
    pub(super) async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            customer_by_id: client
                .prepare(
                    "SELECT c_id, c_balance::text, c_first, c_middle, c_last FROM customer \
                     WHERE c_w_id = $1 AND c_d_id = $2 AND c_id = $3",
                )
                .await?,
            customers_by_name: client
                .prepare(
                    "SELECT c_id, c_balance::text, c_first, c_middle, c_last FROM customer \
                     WHERE c_w_id = $1 AND c_d_id = $2 AND c_last = $3 ORDER BY c_first, c_id",
                )
                .await?,
            order: client
                .prepare(
                    "SELECT o_id, o_entry_d, o_carrier_id FROM orders \
                     WHERE o_w_id = $1 AND o_d_id = $2 AND o_c_id = $3 ORDER BY o_id DESC LIMIT 1",
                )
                .await?,
            lines: client
                .prepare(
                    "SELECT ol_i_id, ol_supply_w_id, ol_quantity, ol_amount::text, ol_delivery_d \
                     FROM order_line WHERE ol_w_id = $1 AND ol_d_id = $2 AND ol_o_id = $3 ORDER BY ol_number",
                )
                .await?,
        })
    }
}

pub(super) async fn execute(
    transaction: &Transaction<'_>,
    statements: &Statements,
    input: &Input,
) -> Result<Ending, Stop> {
    let (warehouse, district) = (input.warehouse, input.district);
    let customers = match &input.customer {
        CustomerKey::Id(id) => {
            transaction.query(&statements.customer_by_id, &[&warehouse, &district, id]).await?
        }
        CustomerKey::LastName(name) => {
            transaction.query(&statements.customers_by_name, &[&warehouse, &district, name]).await?
        }
    };
    let Some(customer) = customers.get(middle(customers.len())) else {
        return Err(Stop::Unexpected("ORDER-STATUS: no customer of that name or number"));
    };
    let customer: i32 = customer.try_get(0)?;

    // Every customer has an order from the load on.
    let order = transaction.query_opt(&statements.order, &[&warehouse, &district, &customer]).await?;
    let Some(order) = order else {
        return Err(Stop::Unexpected("ORDER-STATUS: a customer without orders"));
    };
    let (order, _entered): (i32, SystemTime) = (order.try_get(0)?, order.try_get(1)?);
    let lines = transaction.query(&statements.lines, &[&warehouse, &district, &order]).await?;
    if lines.is_empty() {
        return Err(Stop::Unexpected("ORDER-STATUS: an order without lines"));
    }
    Ok(Ending::COMMIT)
}
