//! The five transactions (clause 2): their inputs, their statements and how one attempt runs.
//!
//! Invariants: every statement is deterministic (where a first row matters, the order is total); amounts are
//! whole cents and rates whole ten-thousandths on this side, so no floating point touches the data;
//! timestamps are parameters. Showing the results on a terminal screen is not emulated.

pub mod delivery;
pub mod new_order;
pub mod order_status;
pub mod payment;
pub mod stock_level;

use std::future::Future;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio_postgres::{Client, IsolationLevel, Transaction};

use crate::error::{describe, is_retryable, leaves_commit_in_doubt};
use crate::random::{NuRandConstants, TpccRandom};
use crate::scale::{DISTRICTS, Scale};

/// The five types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Clause 2.4.
    NewOrder,
    /// Clause 2.5.
    Payment,
    /// Clause 2.6.
    OrderStatus,
    /// Clause 2.7.
    Delivery,
    /// Clause 2.8.
    StockLevel,
}

impl Kind {
    /// All of them, in the specification's order.
    pub const ALL: [Self; 5] =
        [Self::NewOrder, Self::Payment, Self::OrderStatus, Self::Delivery, Self::StockLevel];

    /// The specification's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::NewOrder => "NEW-ORDER",
            Self::Payment => "PAYMENT",
            Self::OrderStatus => "ORDER-STATUS",
            Self::Delivery => "DELIVERY",
            Self::StockLevel => "STOCK-LEVEL",
        }
    }

    /// Whether it only reads; such transactions are begun READ ONLY.
    pub fn is_read_only(self) -> bool {
        matches!(self, Self::OrderStatus | Self::StockLevel)
    }

    /// Keying time (5.2.5.7).
    pub fn keying_time(self) -> Duration {
        Duration::from_secs(match self {
            Self::NewOrder => 18,
            Self::Payment => 3,
            Self::OrderStatus | Self::Delivery | Self::StockLevel => 2,
        })
    }

    /// Mean think time (5.2.5.7).
    pub fn mean_think_time(self) -> Duration {
        Duration::from_secs(match self {
            Self::NewOrder | Self::Payment => 12,
            Self::OrderStatus => 10,
            Self::Delivery | Self::StockLevel => 5,
        })
    }
}

/// What the inputs of a terminal are drawn from.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The terminal's home warehouse (2.4.1.1).
    pub warehouse: i32,
    /// The terminal's district, which STOCK-LEVEL asks about (2.8.1.1).
    pub district: i32,
    /// Cardinalities of the database.
    pub scale: Scale,
    /// C-Run of the run.
    pub constants: NuRandConstants,
}

impl Place {
    fn any_district(random: &mut TpccRandom) -> i32 {
        random.between(1, DISTRICTS)
    }
}

/// A customer as a terminal names one: by number, or (60 %) by last name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CustomerKey {
    /// C_ID.
    Id(i32),
    /// C_LAST.
    LastName(String),
}

impl CustomerKey {
    /// 2.5.1.2 and 2.6.1.2: 60 % by last name.
    fn draw(random: &mut TpccRandom, place: &Place) -> Self {
        let customers = place.scale.customers_per_district;
        if random.percent(60) {
            Self::LastName(random.last_name(&place.constants, customers))
        } else {
            Self::Id(random.customer_id(&place.constants, customers))
        }
    }
}

/// The position of the middle customer among `count` of one last name, rounded up (2.5.2.2), from zero.
fn middle(count: usize) -> usize {
    count.div_ceil(2).saturating_sub(1)
}

/// The input of one transaction; a retry uses it again.
#[derive(Clone, Debug)]
pub enum Input {
    /// Clause 2.4.1.
    NewOrder(new_order::Input),
    /// Clause 2.5.1.
    Payment(payment::Input),
    /// Clause 2.6.1.
    OrderStatus(order_status::Input),
    /// Clause 2.7.1.
    Delivery(delivery::Input),
    /// Clause 2.8.1.
    StockLevel(stock_level::Input),
}

impl Input {
    /// Draws the input of a transaction of this kind.
    pub fn draw(kind: Kind, random: &mut TpccRandom, place: &Place) -> Self {
        match kind {
            Kind::NewOrder => Self::NewOrder(new_order::Input::draw(random, place)),
            Kind::Payment => Self::Payment(payment::Input::draw(random, place)),
            Kind::OrderStatus => Self::OrderStatus(order_status::Input::draw(random, place)),
            Kind::Delivery => Self::Delivery(delivery::Input::draw(random, place)),
            Kind::StockLevel => Self::StockLevel(stock_level::Input::draw(random, place)),
        }
    }

    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NewOrder(_) => Kind::NewOrder,
            Self::Payment(_) => Kind::Payment,
            Self::OrderStatus(_) => Kind::OrderStatus,
            Self::Delivery(_) => Kind::Delivery,
            Self::StockLevel(_) => Kind::StockLevel,
        }
    }
}

/// The prepared statements of one session.
#[derive(Clone, Debug)]
pub struct Statements {
    new_order: new_order::Statements,
    payment: payment::Statements,
    order_status: order_status::Statements,
    delivery: delivery::Statements,
    stock_level: stock_level::Statements,
}

impl Statements {
    /// Prepares all statements, once per session.
    ///
    /// # Errors
    /// The driver's.
    pub async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
        Ok(Self {
            new_order: new_order::Statements::prepare(client).await?,
            payment: payment::Statements::prepare(client).await?,
            order_status: order_status::Statements::prepare(client).await?,
            delivery: delivery::Statements::prepare(client).await?,
            stock_level: stock_level::Statements::prepare(client).await?,
        })
    }
}

/// How the statements of a transaction wanted it to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By COMMIT. `skipped` counts districts of a DELIVERY without an outstanding order (2.7.4.2).
    Commit {
        /// Districts skipped.
        skipped: u32,
    },
    /// By ROLLBACK: the unused item number of one NEW-ORDER in a hundred (2.4.1.4).
    Rollback,
}

impl Ending {
    const COMMIT: Self = Self::Commit { skipped: 0 };
}

/// Why the statements of a transaction stopped.
#[derive(Debug)]
pub enum Stop {
    /// A statement failed.
    Statement(tokio_postgres::Error),
    /// The answers contradict the loaded database.
    Unexpected(&'static str),
}

impl From<tokio_postgres::Error> for Stop {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Statement(error)
    }
}

/// A completed attempt.
#[derive(Clone, Copy, Debug)]
pub struct Completed {
    /// How it ended.
    pub ending: Ending,
    /// Round trip of COMMIT alone; `None` after ROLLBACK.
    pub commit: Option<Duration>,
}

/// A failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Serialization failure or deadlock: nothing happened, try again.
    Conflict {
        /// SQLSTATE.
        state: String,
    },
    /// The server refused; trying again would not help.
    Refused {
        /// SQLSTATE, or what kind of contradiction.
        code: String,
        /// In words.
        message: String,
    },
    /// The session ended before COMMIT: nothing happened.
    Disconnected {
        /// SQLSTATE, when the server said why.
        state: Option<String>,
        /// In words.
        message: String,
    },
    /// COMMIT was sent and its outcome is unknown.
    CommitInDoubt {
        /// In words.
        message: String,
    },
}

/// One attempt at a transaction, REPEATABLE READ from BEGIN to COMMIT. With `pipelining`, statements that do
/// not need one another's answers share a round trip.
///
/// # Errors
/// A [`Failure`], which says whether to try again.
pub async fn attempt(
    client: &mut Client,
    statements: &Statements,
    input: &Input,
    pipelining: bool,
) -> Result<Completed, Failure> {
    let transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(input.kind().is_read_only())
        .start()
        .await
        .map_err(|error| failure(&error))?;
    match execute(&transaction, statements, input, pipelining).await {
        Ok(ending @ Ending::Commit { .. }) => {
            let sent = Instant::now();
            match transaction.commit().await {
                Ok(()) => Ok(Completed { ending, commit: Some(sent.elapsed()) }),
                Err(error) if leaves_commit_in_doubt(error.code()) => {
                    Err(Failure::CommitInDoubt { message: describe(&error) })
                }
                Err(error) => Err(failure(&error)),
            }
        }
        Ok(Ending::Rollback) => match transaction.rollback().await {
            Ok(()) => Ok(Completed { ending: Ending::Rollback, commit: None }),
            Err(error) => Err(failure(&error)),
        },
        Err(stop) => {
            // The first error decides; a ROLLBACK that fails as well leaves a session that ends itself.
            let _ = transaction.rollback().await;
            Err(match stop {
                Stop::Statement(error) => failure(&error),
                Stop::Unexpected(what) => {
                    Failure::Refused { code: "unexpected answer".to_owned(), message: what.to_owned() }
                }
            })
        }
    }
}

async fn execute(
    transaction: &Transaction<'_>,
    statements: &Statements,
    input: &Input,
    pipelining: bool,
) -> Result<Ending, Stop> {
    match input {
        Input::NewOrder(input) => {
            new_order::execute(transaction, &statements.new_order, input, pipelining).await
        }
        Input::Payment(input) => payment::execute(transaction, &statements.payment, input, pipelining).await,
        Input::OrderStatus(input) => {
            order_status::execute(transaction, &statements.order_status, input).await
        }
        Input::Delivery(input) => {
            delivery::execute(transaction, &statements.delivery, input, pipelining).await
        }
        Input::StockLevel(input) => stock_level::execute(transaction, &statements.stock_level, input).await,
    }
}

/// Sorts an error that came before COMMIT, or that answered COMMIT with a definite no.
fn failure(error: &tokio_postgres::Error) -> Failure {
    match error.code() {
        Some(state) if is_retryable(state) => Failure::Conflict { state: state.code().to_owned() },
        // Class 57P is a server or an operator that ends sessions, class 08 a broken link.
        Some(state) if state.code().starts_with("57P") || state.code().starts_with("08") => {
            Failure::Disconnected { state: Some(state.code().to_owned()), message: describe(error) }
        }
        Some(state) => Failure::Refused { code: state.code().to_owned(), message: describe(error) },
        None if error.is_closed() || is_io(error) => {
            Failure::Disconnected { state: None, message: describe(error) }
        }
        None => Failure::Refused { code: "unexpected answer".to_owned(), message: describe(error) },
    }
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<std::io::Error>())
}

/// Runs two statements: in one round trip when pipelining (the driver sends each when first polled, in
/// order), else one after the other.
async fn both<A, B>(
    pipelining: bool,
    first: impl Future<Output = Result<A, tokio_postgres::Error>>,
    second: impl Future<Output = Result<B, tokio_postgres::Error>>,
) -> Result<(A, B), tokio_postgres::Error> {
    if pipelining { futures::try_join!(first, second) } else { Ok((first.await?, second.await?)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        let mut random = TpccRandom::new(1, 0);
        let constants = NuRandConstants::for_run(&mut random);
        Place { warehouse: 2, district: 3, scale: Scale::specification(5), constants }
    }

    #[test]
    fn the_middle_customer_is_rounded_up() {
        assert_eq!([1, 2, 3, 4, 5].map(middle), [0, 0, 1, 1, 2]);
    }

    #[test]
    fn six_customers_in_ten_are_named() {
        let mut random = TpccRandom::new(2, 0);
        let place = place();
        let named = (0..10_000)
            .filter(|_| matches!(CustomerKey::draw(&mut random, &place), CustomerKey::LastName(_)))
            .count();
        assert!((5_800..=6_200).contains(&named), "{named} of 10000");
    }

    #[test]
    fn inputs_are_of_the_kind_asked_for() {
        let mut random = TpccRandom::new(3, 0);
        for kind in Kind::ALL {
            assert_eq!(Input::draw(kind, &mut random, &place()).kind(), kind);
        }
    }
}
