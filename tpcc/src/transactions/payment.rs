//! PAYMENT (clause 2.5): warehouse, district, customer, history.

use std::time::SystemTime;

use tokio_postgres::{Client, Row, Statement, Transaction};

use super::{CustomerKey, Ending, Place, Stop, both, middle};
use crate::random::TpccRandom;

/// Clause 2.5.1.
#[derive(Clone, Debug)]
pub struct Input {
    /// W_ID.
    pub warehouse: i32,
    /// D_ID.
    pub district: i32,
    /// C_W_ID.
    pub customer_warehouse: i32,
    /// C_D_ID.
    pub customer_district: i32,
    /// C_ID or C_LAST.
    pub customer: CustomerKey,
    /// H_AMOUNT in cents.
    pub cents: i64,
    /// H_DATE.
    pub date: SystemTime,
}

impl Input {
    pub(super) fn draw(random: &mut TpccRandom, place: &Place) -> Self {
        let district = Place::any_district(random);
        // 2.5.1.2: 15 % of the customers belong to another warehouse.
        let is_remote = random.percent(15) && place.scale.warehouses > 1;
        let (customer_warehouse, customer_district) = if is_remote {
            (random.other_warehouse(place.warehouse, place.scale.warehouses), Place::any_district(random))
        } else {
            (place.warehouse, district)
        };
        Self {
            warehouse: place.warehouse,
            district,
            customer_warehouse,
            customer_district,
            customer: CustomerKey::draw(random, place),
            cents: i64::from(random.between(100, 500_000)),
            date: SystemTime::now(),
        }
    }
}

/// Prepared statements.
#[derive(Clone, Debug)]
pub struct Statements {
    warehouse: Statement,
    district: Statement,
    customers_by_name: Statement,
    customer: Statement,
    history: Statement,
}

impl Statements {
    pub(super) async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            warehouse: client
                .prepare(
                    "UPDATE warehouse SET w_ytd = w_ytd + $2::bigint * 0.01 WHERE w_id = $1 \
                     RETURNING w_name, w_street_1, w_street_2, w_city, w_state, w_zip",
                )
                .await?,
            district: client
                .prepare(
                    "UPDATE district SET d_ytd = d_ytd + $3::bigint * 0.01 WHERE d_w_id = $1 AND d_id = $2 \
                     RETURNING d_name, d_street_1, d_street_2, d_city, d_state, d_zip",
                )
                .await?,
            customers_by_name: client
                .prepare(
                    "SELECT c_id FROM customer WHERE c_w_id = $1 AND c_d_id = $2 AND c_last = $3 \
                     ORDER BY c_first, c_id",
                )
                .await?,
            // 2.5.2.2: customers with bad credit have the payment noted at the front of C_DATA.
            customer: client
                .prepare(
                    "UPDATE customer SET c_balance = c_balance - $4::bigint * 0.01, \
                     c_ytd_payment = c_ytd_payment + $4::bigint * 0.01, c_payment_cnt = c_payment_cnt + 1, \
                     c_data = CASE WHEN c_credit = 'BC' THEN left($5::text || c_data, 500) ELSE c_data END \
                     WHERE c_w_id = $1 AND c_d_id = $2 AND c_id = $3 \
                     RETURNING c_first, c_middle, c_last, c_street_1, c_street_2, c_city, c_state, c_zip, \
                     c_phone, c_since, c_credit, c_credit_lim::text, c_discount::text, c_balance::text, \
                     CASE WHEN c_credit = 'BC' THEN left(c_data, 200) END",
                )
                .await?,
            history: client
                .prepare(
                    "INSERT INTO history (h_c_id, h_c_d_id, h_c_w_id, h_d_id, h_w_id, h_date, \
                     h_amount, h_data) VALUES ($1, $2, $3, $4, $5, $6, $7::bigint * 0.01, $8)",
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
    let ((warehouse, district), customer) = both(
        pipelining,
        both(
            pipelining,
            transaction.query_one(&statements.warehouse, &[&input.warehouse, &input.cents]),
            transaction.query_one(&statements.district, &[&input.warehouse, &input.district, &input.cents]),
        ),
        update_customer(transaction, statements, input),
    )
    .await?;
    let Some(customer) = customer else {
        return Err(Stop::Unexpected("PAYMENT: no customer of that name or number"));
    };
    // 2.5.2.2: H_DATA is W_NAME and D_NAME with four spaces between.
    let data = format!("{}    {}", warehouse.try_get::<_, &str>(0)?, district.try_get::<_, &str>(0)?);
    transaction
        .execute(
            &statements.history,
            &[
                &customer,
                &input.customer_district,
                &input.customer_warehouse,
                &input.district,
                &input.warehouse,
                &input.date,
                &input.cents,
                &data,
            ],
        )
        .await?;
    Ok(Ending::COMMIT)
}

/// Finds the customer and takes the payment; the customer's number, or `None` if there is none.
async fn update_customer(
    transaction: &Transaction<'_>,
    statements: &Statements,
    input: &Input,
) -> Result<Option<i32>, tokio_postgres::Error> {
    let (warehouse, district) = (input.customer_warehouse, input.customer_district);
    let customer: i32 = match &input.customer {
        CustomerKey::Id(customer) => *customer,
        CustomerKey::LastName(name) => {
            let named =
                transaction.query(&statements.customers_by_name, &[&warehouse, &district, name]).await?;
            match named.get(middle(named.len())) {
                Some(row) => row.try_get(0)?,
                None => return Ok(None),
            }
        }
    };
    let note = note(input, customer);
    let updated: Option<Row> = transaction
        .query_opt(&statements.customer, &[&warehouse, &district, &customer, &input.cents, &note])
        .await?;
    Ok(updated.map(|_| customer))
}

/// What is put in front of C_DATA of a customer with bad credit.
fn note(input: &Input, customer: i32) -> String {
    format!(
        "{customer} {} {} {} {} {}.{:02}|",
        input.customer_district,
        input.customer_warehouse,
        input.district,
        input.warehouse,
        input.cents / 100,
        input.cents % 100
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::NuRandConstants;
    use crate::scale::Scale;

    fn inputs(warehouses: i32) -> Vec<Input> {
        let mut random = TpccRandom::new(1, 0);
        let constants = NuRandConstants::for_run(&mut random);
        let place = Place { warehouse: 1, district: 1, scale: Scale::specification(warehouses), constants };
        (0..10_000).map(|_| Input::draw(&mut random, &place)).collect()
    }

    #[test]
    fn fifteen_customers_in_a_hundred_are_remote() {
        let remote = inputs(4).iter().filter(|input| input.customer_warehouse != 1).count();
        assert!((1_380..=1_620).contains(&remote), "{remote} of 10000");
        assert!(inputs(1).iter().all(|input| input.customer_warehouse == 1));
    }

    #[test]
    fn home_customers_belong_to_the_district_paid_in() {
        let inputs = inputs(4);
        let mut home = inputs.iter().filter(|input| input.customer_warehouse == 1);
        assert!(home.all(|input| input.customer_district == input.district));
        assert!(inputs.iter().all(|input| (100..=500_000).contains(&input.cents)));
    }

    #[test]
    fn the_note_names_customer_place_and_amount() {
        let input = Input {
            warehouse: 1,
            district: 2,
            customer_warehouse: 3,
            customer_district: 4,
            customer: CustomerKey::Id(5),
            cents: 1205,
            date: SystemTime::UNIX_EPOCH,
        };
        assert_eq!(note(&input, 5), "5 4 3 2 1 12.05|");
    }
}
