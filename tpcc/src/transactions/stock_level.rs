//! STOCK-LEVEL (clause 2.8): how many items of the last 20 orders are low in stock. Read only.

use tokio_postgres::{Client, Statement, Transaction};

use super::{Ending, Place, Stop};
use crate::random::TpccRandom;

/// Clause 2.8.1.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// W_ID.
    pub warehouse: i32,
    /// D_ID, the terminal's own.
    pub district: i32,
    /// Threshold, 10 to 20.
    pub threshold: i32,
}

impl Input {
    pub(super) fn draw(random: &mut TpccRandom, place: &Place) -> Self {
        Self { warehouse: place.warehouse, district: place.district, threshold: random.between(10, 20) }
    }
}

/// Prepared statements.
#[derive(Clone, Debug)]
pub struct Statements {
    district: Statement,
    low_stock: Statement,
}

impl Statements {
    pub(super) async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            district: client
                .prepare("SELECT d_next_o_id FROM district WHERE d_w_id = $1 AND d_id = $2")
                .await?,
            low_stock: client
                .prepare(
                    "SELECT count(DISTINCT s_i_id) FROM order_line \
                     JOIN stock ON s_w_id = ol_w_id AND s_i_id = ol_i_id \
                     WHERE ol_w_id = $1 AND ol_d_id = $2 AND ol_o_id >= $3 AND ol_o_id < $4 \
                     AND s_quantity < $5",
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
    let next: i32 =
        transaction.query_one(&statements.district, &[&warehouse, &district]).await?.try_get(0)?;
    let first = next - 20;
    let low = transaction
        .query_one(&statements.low_stock, &[&warehouse, &district, &first, &next, &input.threshold])
        .await?;
    let _: i64 = low.try_get(0)?;
    Ok(Ending::COMMIT)
}
