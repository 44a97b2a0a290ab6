//! NEW-ORDER (clause 2.4): district, customer with warehouse, order, new order, items, stock, lines.

use std::collections::BTreeMap;
use std::time::SystemTime;

use tokio_postgres::{Client, Row, Statement, Transaction};

use super::{Ending, Place, Stop, both};
use crate::random::TpccRandom;

/// One line of the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// OL_I_ID.
    pub item: i32,
    /// OL_SUPPLY_W_ID.
    pub supply_warehouse: i32,
    /// OL_QUANTITY.
    pub quantity: i32,
}

/// Clause 2.4.1.
#[derive(Clone, Debug)]
pub struct Input {
    /// W_ID.
    pub warehouse: i32,
    /// D_ID.
    pub district: i32,
    /// C_ID.
    pub customer: i32,
    /// O_ENTRY_D.
    pub entry: SystemTime,
    /// 5 to 15 lines.
    pub lines: Vec<Line>,
}

impl Input {
    pub(super) fn draw(random: &mut TpccRandom, place: &Place) -> Self {
        let district = Place::any_district(random);
        let customer = random.customer_id(&place.constants, place.scale.customers_per_district);
        let line_count = random.between(5, 15);
        let mut lines: Vec<Line> = (0..line_count)
            .map(|_| Line {
                item: random.item_id(&place.constants, place.scale.items),
                // 2.4.1.5: one line in a hundred is supplied by another warehouse.
                supply_warehouse: if random.percent(1) {
                    random.other_warehouse(place.warehouse, place.scale.warehouses)
                } else {
                    place.warehouse
                },
                quantity: random.between(1, 10),
            })
            .collect();
        // 2.4.1.4: the last item of one order in a hundred has an unused number.
        if random.percent(1)
            && let Some(last) = lines.last_mut()
        {
            last.item = place.scale.items + 1;
        }
        Self { warehouse: place.warehouse, district, customer, entry: SystemTime::now(), lines }
    }

    fn all_local(&self) -> i32 {
        i32::from(self.lines.iter().all(|line| line.supply_warehouse == self.warehouse))
    }
}

/// Prepared statements.
#[derive(Clone, Debug)]
pub struct Statements {
    district: Statement,
    customer: Statement,
    order: Statement,
    new_order: Statement,
    items: Statement,
    stock: Statement,
    lines: Statement,
}

impl Statements {
    pub(super) async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            district: client
                .prepare(
                    "UPDATE district SET d_next_o_id = d_next_o_id + 1 WHERE d_w_id = $1 AND d_id = $2 \
                     RETURNING d_next_o_id - 1, d_tax::text",
                )
                .await?,
            customer: client
                .prepare(
                    "SELECT c_discount::text, c_last, c_credit, w_tax::text FROM customer \
                     JOIN warehouse ON w_id = c_w_id WHERE c_w_id = $1 AND c_d_id = $2 AND c_id = $3",
                )
                .await?,
            order: client
                .prepare(
                    "INSERT INTO orders (o_w_id, o_d_id, o_id, o_c_id, o_entry_d, o_ol_cnt, o_all_local) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7)",
                )
                .await?,
            new_order: client
                .prepare("INSERT INTO new_order (no_w_id, no_d_id, no_o_id) VALUES ($1, $2, $3)")
                .await?,
            items: client
                .prepare(
                    "SELECT i_id, (i_price * 100)::bigint, i_name, i_data FROM item \
                     WHERE i_id = ANY ($1::integer[]) ORDER BY i_id",
                )
                .await?,
            // 2.4.2.2: stock that would fall below 10 is replenished by 91.
            stock: client
                .prepare(
                    "UPDATE stock SET \
                     s_quantity = s_quantity - line.quantity + CASE WHEN s_quantity - line.quantity >= 10 \
                     THEN 0 ELSE 91 END, \
                     s_ytd = s_ytd + line.quantity, s_order_cnt = s_order_cnt + 1, \
                     s_remote_cnt = s_remote_cnt + line.remote \
                     FROM unnest($1::integer[], $2::integer[], $3::integer[], $4::integer[]) \
                     AS line (warehouse, item, quantity, remote) \
                     WHERE s_w_id = line.warehouse AND s_i_id = line.item \
                     RETURNING s_w_id, s_i_id, s_quantity, s_data, (ARRAY[s_dist_01, s_dist_02, s_dist_03, \
                     s_dist_04, s_dist_05, s_dist_06, s_dist_07, s_dist_08, s_dist_09, \
                     s_dist_10])[$5::integer]::text",
                )
                .await?,
            lines: client
                .prepare(
                    "INSERT INTO order_line (ol_w_id, ol_d_id, ol_o_id, ol_number, ol_i_id, ol_supply_w_id, \
                     ol_quantity, ol_amount, ol_dist_info) \
                     SELECT $1::integer, $2::integer, $3::integer, line.number, line.item, line.warehouse, \
                     line.quantity, line.cents * 0.01, line.dist \
                     FROM unnest($4::integer[], $5::integer[], $6::integer[], $7::integer[], $8::bigint[], \
                     $9::text[]) \
                     AS line (number, item, warehouse, quantity, cents, dist)",
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
    let (warehouse, district) = (input.warehouse, input.district);
    let item_ids: Vec<i32> = distinct(input.lines.iter().map(|line| line.item));

    // The district first: it is what orders of one district contend for, and a conflict should cost
    // little work.
    let ((district_row, _customer), items) = both(
        pipelining,
        both(
            pipelining,
            transaction.query_one(&statements.district, &[&warehouse, &district]),
            transaction.query_one(&statements.customer, &[&warehouse, &district, &input.customer]),
        ),
        transaction.query(&statements.items, &[&item_ids]),
    )
    .await?;
    let order: i32 = district_row.try_get(0)?;
    let prices = prices(&items)?;

    // 2.4.2.3: the whole profile is executed even if an unused item number dooms it; only that item is left
    // out.
    let known: Vec<Line> =
        input.lines.iter().filter(|line| prices.contains_key(&line.item)).copied().collect();
    let line_count = input.lines.len() as i32;
    let all_local = input.all_local();
    both(
        pipelining,
        transaction.execute(
            &statements.order,
            &[&warehouse, &district, &order, &input.customer, &input.entry, &line_count, &all_local],
        ),
        transaction.execute(&statements.new_order, &[&warehouse, &district, &order]),
    )
    .await?;

    let mut dist = BTreeMap::new();
    for round in rounds(&known) {
        let stock = update_stock(transaction, statements, input, &round).await?;
        if stock.len() != round.len() {
            return Err(Stop::Unexpected("NEW-ORDER: a stock row is missing"));
        }
        for row in &stock {
            dist.insert((row.try_get::<_, i32>(0)?, row.try_get::<_, i32>(1)?), row.try_get::<_, String>(4)?);
        }
    }
    insert_lines(transaction, statements, input, order, &known, &prices, &dist).await?;
    Ok(if known.len() == input.lines.len() { Ending::COMMIT } else { Ending::Rollback })
}

/// Prices in cents by item.
fn prices(items: &[Row]) -> Result<BTreeMap<i32, i64>, Stop> {
    items.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

fn distinct(items: impl Iterator<Item = i32>) -> Vec<i32> {
    items.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}

/// The lines in as few groups as it takes for none to name a stock row twice, since one UPDATE changes a row
/// once. Sorted by key, so that orders that share stock rows lock them in one sequence.
fn rounds(lines: &[Line]) -> Vec<Vec<Line>> {
    let mut sorted = lines.to_vec();
    sorted.sort_by_key(|line| (line.supply_warehouse, line.item));
    let mut rounds: Vec<Vec<Line>> = Vec::new();
    for line in sorted {
        let is_free = |round: &&mut Vec<Line>| {
            !round
                .iter()
                .any(|other| (other.supply_warehouse, other.item) == (line.supply_warehouse, line.item))
        };
        match rounds.iter_mut().find(is_free) {
            Some(round) => round.push(line),
            None => rounds.push(vec![line]),
        }
    }
    rounds
}

async fn update_stock(
    transaction: &Transaction<'_>,
    statements: &Statements,
    input: &Input,
    lines: &[Line],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    let warehouses: Vec<i32> = lines.iter().map(|line| line.supply_warehouse).collect();
    let items: Vec<i32> = lines.iter().map(|line| line.item).collect();
    let quantities: Vec<i32> = lines.iter().map(|line| line.quantity).collect();
    let remote: Vec<i32> =
        lines.iter().map(|line| i32::from(line.supply_warehouse != input.warehouse)).collect();
    transaction.query(&statements.stock, &[&warehouses, &items, &quantities, &remote, &input.district]).await
}

async fn insert_lines(
    transaction: &Transaction<'_>,
    statements: &Statements,
    input: &Input,
    order: i32,
    lines: &[Line],
    prices: &BTreeMap<i32, i64>,
    dist: &BTreeMap<(i32, i32), String>,
) -> Result<(), Stop> {
    let numbers: Vec<i32> = (1..=lines.len() as i32).collect();
    let items: Vec<i32> = lines.iter().map(|line| line.item).collect();
    let warehouses: Vec<i32> = lines.iter().map(|line| line.supply_warehouse).collect();
    let quantities: Vec<i32> = lines.iter().map(|line| line.quantity).collect();
    let mut cents = Vec::with_capacity(lines.len());
    let mut dist_infos = Vec::with_capacity(lines.len());
    for line in lines {
        let price = prices.get(&line.item);
        let dist_info = dist.get(&(line.supply_warehouse, line.item));
        let (Some(price), Some(dist_info)) = (price, dist_info) else {
            return Err(Stop::Unexpected("NEW-ORDER: an item or stock row that was not asked for"));
        };
        cents.push(i64::from(line.quantity) * price);
        dist_infos.push(dist_info.as_str());
    }
    let inserted = transaction
        .execute(
            &statements.lines,
            &[
                &input.warehouse,
                &input.district,
                &order,
                &numbers,
                &items,
                &warehouses,
                &quantities,
                &cents,
                &dist_infos,
            ],
        )
        .await?;
    if inserted == lines.len() as u64 {
        Ok(())
    } else {
        Err(Stop::Unexpected("NEW-ORDER: not every line was inserted"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::NuRandConstants;
    use crate::scale::Scale;

    fn inputs(count: usize, warehouses: i32) -> Vec<Input> {
        let mut random = TpccRandom::new(1, 0);
        let constants = NuRandConstants::for_run(&mut random);
        let place = Place { warehouse: 2, district: 1, scale: Scale::specification(warehouses), constants };
        (0..count).map(|_| Input::draw(&mut random, &place)).collect()
    }

    #[test]
    fn inputs_keep_the_specified_proportions() {
        let inputs = inputs(20_000, 5);
        let unused = inputs.iter().filter(|input| input.lines.iter().any(|line| line.item > 100_000)).count();
        assert!((140..=260).contains(&unused), "{unused} of 20000 orders name an unused item");
        let lines: Vec<Line> = inputs.iter().flat_map(|input| input.lines.clone()).collect();
        let mean = lines.len() as f64 / inputs.len() as f64;
        assert!((9.8..10.2).contains(&mean), "{mean} lines per order");
        let remote =
            lines.iter().filter(|line| line.supply_warehouse != 2).count() as f64 / lines.len() as f64;
        assert!((0.008..0.012).contains(&remote), "{remote} of the lines are remote");
    }

    #[test]
    fn a_single_warehouse_supplies_itself() {
        let mut random = TpccRandom::new(1, 0);
        let constants = NuRandConstants::for_run(&mut random);
        let place = Place { warehouse: 1, district: 1, scale: Scale::specification(1), constants };
        for _ in 0..1000 {
            assert_eq!(Input::draw(&mut random, &place).all_local(), 1);
        }
    }

    #[test]
    fn rounds_never_name_a_stock_row_twice_and_lose_no_line() {
        let line = |supply_warehouse, item| Line { item, supply_warehouse, quantity: 1 };
        let lines = [line(1, 9), line(1, 5), line(1, 9), line(2, 9), line(1, 9)];
        let rounds = rounds(&lines);
        assert_eq!(rounds.iter().map(Vec::len).collect::<Vec<_>>(), [3, 1, 1]);
        assert_eq!(rounds[0], [line(1, 5), line(1, 9), line(2, 9)]);
    }
}
