//! DELIVERY (clause 2.7): the oldest outstanding order of each district, in one transaction.
//!
//! Executed at once instead of queued (2.7.2 would defer it), so that its latency is measured like any other.

use std::collections::BTreeMap;
use std::time::SystemTime;

use tokio_postgres::{Client, Row, Statement, Transaction};

use super::{Ending, Place, Stop, both};
use crate::random::TpccRandom;
use crate::scale::DISTRICTS;

/// Clause 2.7.1.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// W_ID.
    pub warehouse: i32,
    /// O_CARRIER_ID.
    pub carrier: i32,
    /// OL_DELIVERY_D.
    pub delivered: SystemTime,
}

impl Input {
    pub(super) fn draw(random: &mut TpccRandom, place: &Place) -> Self {
        Self { warehouse: place.warehouse, carrier: random.between(1, 10), delivered: SystemTime::now() }
    }
}

/// Prepared statements; each serves all districts at once.
#[derive(Clone, Debug)]
pub struct Statements {
    oldest: Statement,
    new_orders: Statement,
    orders: Statement,
    lines: Statement,
    customers: Statement,
}

impl Statements {
    pub(super) async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            // min() per district reads one index entry each, where GROUP BY would read the whole backlog.
            oldest: client
                .prepare(
                    "SELECT d_id, (SELECT min(no_o_id) FROM new_order \
                     WHERE no_w_id = d_w_id AND no_d_id = d_id) \
                     FROM district WHERE d_w_id = $1 ORDER BY d_id",
                )
                .await?,
            new_orders: client
                .prepare(
                    "DELETE FROM new_order USING unnest($2::integer[], $3::integer[]) AS due (district, id) \
                     WHERE no_w_id = $1 AND no_d_id = due.district AND no_o_id = due.id",
                )
                .await?,
            orders: client
                .prepare(
                    "UPDATE orders SET o_carrier_id = $4 \
                     FROM unnest($2::integer[], $3::integer[]) AS due (district, id) \
                     WHERE o_w_id = $1 AND o_d_id = due.district AND o_id = due.id RETURNING o_d_id, o_c_id",
                )
                .await?,
            lines: client
                .prepare(
                    "UPDATE order_line SET ol_delivery_d = $4 \
                     FROM unnest($2::integer[], $3::integer[]) AS due (district, id) \
                     WHERE ol_w_id = $1 AND ol_d_id = due.district AND ol_o_id = due.id \
                     RETURNING ol_d_id, (ol_amount * 100)::bigint",
                )
                .await?,
            customers: client
                .prepare(
                    "UPDATE customer SET c_balance = c_balance + due.cents * 0.01, \
                     c_delivery_cnt = c_delivery_cnt + 1 \
                     FROM unnest($2::integer[], $3::integer[], $4::bigint[]) AS due (district, id, cents) \
                     WHERE c_w_id = $1 AND c_d_id = due.district AND c_id = due.id",
                )
                .await?,
        })
    }
}

pub(super) async fn execute(
    transaction: &Transaction<'_>,
    statements: &Statements,
    input: &Input,
    pipelining: bool,
) -> Result<Ending, Stop> {
    let warehouse = input.warehouse;
    let oldest = transaction.query(&statements.oldest, &[&warehouse]).await?;
    let (districts, orders) = due(&oldest)?;
    let skipped = (DISTRICTS as usize).saturating_sub(districts.len()) as u32;
    if districts.is_empty() {
        return Ok(Ending::Commit { skipped });
    }

    // The new orders first: deliveries of one warehouse contend for them, and a conflict should cost little
    // work.
    let ((deleted, order_rows), line_rows) = both(
        pipelining,
        both(
            pipelining,
            transaction.execute(&statements.new_orders, &[&warehouse, &districts, &orders]),
            transaction.query(&statements.orders, &[&warehouse, &districts, &orders, &input.carrier]),
        ),
        transaction.query(&statements.lines, &[&warehouse, &districts, &orders, &input.delivered]),
    )
    .await?;
    if deleted != districts.len() as u64 || order_rows.len() != districts.len() {
        return Err(Stop::Unexpected("DELIVERY: a new order without its order"));
    }

    let totals = totals(&line_rows)?;
    let mut customer_districts = Vec::with_capacity(order_rows.len());
    let mut customers = Vec::with_capacity(order_rows.len());
    let mut cents = Vec::with_capacity(order_rows.len());
    for row in &order_rows {
        let district: i32 = row.try_get(0)?;
        customer_districts.push(district);
        customers.push(row.try_get::<_, i32>(1)?);
        cents.push(totals.get(&district).copied().unwrap_or_default());
    }
    let updated = transaction
        .execute(&statements.customers, &[&warehouse, &customer_districts, &customers, &cents])
        .await?;
    if updated != customers.len() as u64 {
        return Err(Stop::Unexpected("DELIVERY: an order without its customer"));
    }
    Ok(Ending::Commit { skipped })
}

/// Districts that have an outstanding order, and that order.
fn due(oldest: &[Row]) -> Result<(Vec<i32>, Vec<i32>), Stop> {
    let mut districts = Vec::with_capacity(oldest.len());
    let mut orders = Vec::with_capacity(oldest.len());
    for row in oldest {
        if let Some(order) = row.try_get::<_, Option<i32>>(1)? {
            districts.push(row.try_get(0)?);
            orders.push(order);
        }
    }
    Ok((districts, orders))
}

/// Sum of OL_AMOUNT in cents by district.
fn totals(lines: &[Row]) -> Result<BTreeMap<i32, i64>, Stop> {
    let mut totals = BTreeMap::new();
    for row in lines {
        *totals.entry(row.try_get::<_, i32>(0)?).or_default() += row.try_get::<_, i64>(1)?;
    }
    Ok(totals)
}
