//! The consistency conditions of clause 3.3.2, each one query that counts what violates it.
//!
//! All of them read one snapshot (REPEATABLE READ, READ ONLY), so that a check is exact even while a run goes
//! on.

use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio_postgres::IsolationLevel;

use crate::connection::Connection;
use crate::error::Error;
use crate::scale::Scale;

/// One condition.
struct Condition {
    clause: &'static str,
    statement: &'static str,
    /// Gives one row with the number of violations.
    violations: &'static str,
}

/// The twelve conditions. `IS DISTINCT FROM` counts a missing side as a violation.
const CONDITIONS: [Condition; 12] = [
    Condition {
        clause: "3.3.2.1",
        statement: "W_YTD = sum(D_YTD) of each warehouse",
        violations: "SELECT count(*) FROM warehouse LEFT JOIN \
             (SELECT d_w_id, sum(d_ytd) AS ytd FROM district GROUP BY d_w_id) AS d ON d_w_id = w_id \
             WHERE w_ytd IS DISTINCT FROM d.ytd",
    },
    Condition {
        clause: "3.3.2.2",
        statement: "D_NEXT_O_ID - 1 = max(O_ID) = max(NO_O_ID) of each district",
        // Says nothing about NEW-ORDER where a district has no outstanding order.
        violations: "SELECT count(*) FROM district \
             LEFT JOIN (SELECT o_w_id, o_d_id, max(o_id) AS last FROM orders GROUP BY o_w_id, o_d_id) AS o \
             ON o_w_id = d_w_id AND o_d_id = d_id \
             LEFT JOIN (SELECT no_w_id, no_d_id, max(no_o_id) AS last FROM new_order \
             GROUP BY no_w_id, no_d_id) AS n ON no_w_id = d_w_id AND no_d_id = d_id \
             WHERE d_next_o_id - 1 IS DISTINCT FROM o.last OR n.last <> d_next_o_id - 1",
    },
    Condition {
        clause: "3.3.2.3",
        statement: "max(NO_O_ID) - min(NO_O_ID) + 1 = number of NEW-ORDER rows of each district",
        violations: "SELECT count(*) FROM (SELECT no_w_id FROM new_order GROUP BY no_w_id, no_d_id \
             HAVING max(no_o_id) - min(no_o_id) + 1 <> count(*)) AS bad",
    },
    Condition {
        clause: "3.3.2.4",
        statement: "sum(O_OL_CNT) = number of ORDER-LINE rows of each district",
        violations: "SELECT count(*) FROM \
             (SELECT o_w_id, o_d_id, sum(o_ol_cnt) AS lines FROM orders GROUP BY o_w_id, o_d_id) AS o \
             FULL JOIN \
             (SELECT ol_w_id, ol_d_id, count(*) AS lines FROM order_line GROUP BY ol_w_id, ol_d_id) AS l \
             ON ol_w_id = o_w_id AND ol_d_id = o_d_id WHERE o.lines IS DISTINCT FROM l.lines",
    },
    Condition {
        clause: "3.3.2.5",
        statement: "O_CARRIER_ID is null if and only if the order has a NEW-ORDER row",
        violations: "SELECT count(*) FROM orders FULL JOIN new_order \
             ON no_w_id = o_w_id AND no_d_id = o_d_id AND no_o_id = o_id \
             WHERE o_id IS NULL OR (o_carrier_id IS NULL) <> (no_o_id IS NOT NULL)",
    },
    Condition {
        clause: "3.3.2.6",
        statement: "O_OL_CNT = number of ORDER-LINE rows of each order",
        violations: "SELECT count(*) FROM orders FULL JOIN (SELECT ol_w_id, ol_d_id, ol_o_id, count(*) \
             AS lines FROM order_line GROUP BY ol_w_id, ol_d_id, ol_o_id) AS l \
             ON ol_w_id = o_w_id AND ol_d_id = o_d_id AND ol_o_id = o_id \
             WHERE o_ol_cnt IS DISTINCT FROM l.lines",
    },
    Condition {
        clause: "3.3.2.7",
        statement: "OL_DELIVERY_D is null if and only if the order's O_CARRIER_ID is",
        violations: "SELECT count(*) FROM order_line LEFT JOIN orders \
             ON o_w_id = ol_w_id AND o_d_id = ol_d_id AND o_id = ol_o_id \
             WHERE o_id IS NULL OR (ol_delivery_d IS NULL) <> (o_carrier_id IS NULL)",
    },
    Condition {
        clause: "3.3.2.8",
        statement: "W_YTD = sum(H_AMOUNT) of each warehouse",
        violations: "SELECT count(*) FROM warehouse LEFT JOIN \
             (SELECT h_w_id, sum(h_amount) AS ytd FROM history GROUP BY h_w_id) AS h ON h_w_id = w_id \
             WHERE w_ytd IS DISTINCT FROM h.ytd",
    },
    Condition {
        clause: "3.3.2.9",
        statement: "D_YTD = sum(H_AMOUNT) of each district",
        violations: "SELECT count(*) FROM district LEFT JOIN \
             (SELECT h_w_id, h_d_id, sum(h_amount) AS ytd FROM history GROUP BY h_w_id, h_d_id) AS h \
             ON h_w_id = d_w_id AND h_d_id = d_id WHERE d_ytd IS DISTINCT FROM h.ytd",
    },
    Condition {
        clause: "3.3.2.10",
        statement: "C_BALANCE = sum(OL_AMOUNT) delivered - sum(H_AMOUNT) of each customer",
        violations: "SELECT count(*) FROM customer LEFT JOIN \
             (SELECT o_w_id, o_d_id, o_c_id, sum(ol_amount) AS amount FROM orders JOIN order_line \
             ON ol_w_id = o_w_id AND ol_d_id = o_d_id AND ol_o_id = o_id WHERE ol_delivery_d IS NOT NULL \
             GROUP BY o_w_id, o_d_id, o_c_id) AS l ON o_w_id = c_w_id AND o_d_id = c_d_id AND o_c_id = c_id \
             LEFT JOIN \
             (SELECT h_c_w_id, h_c_d_id, h_c_id, sum(h_amount) AS amount FROM history \
             GROUP BY h_c_w_id, h_c_d_id, h_c_id) AS h ON h_c_w_id = c_w_id AND h_c_d_id = c_d_id \
             AND h_c_id = c_id WHERE c_balance <> coalesce(l.amount, 0) - coalesce(h.amount, 0)",
    },
    Condition {
        clause: "3.3.2.11",
        // The clause's "= 2100" holds only until the first delivery; every delivery adds one to both sides
        // here.
        statement: "orders - NEW-ORDER rows = initially delivered orders + sum(C_DELIVERY_CNT) of \
             each district",
        violations: "SELECT count(*) FROM \
             (SELECT c_w_id, c_d_id, count(*) * 7 / 10 + sum(c_delivery_cnt) AS delivered FROM customer \
             GROUP BY c_w_id, c_d_id) AS c LEFT JOIN \
             (SELECT o_w_id, o_d_id, count(*) AS orders FROM orders GROUP BY o_w_id, o_d_id) AS o \
             ON o_w_id = c_w_id AND o_d_id = c_d_id LEFT JOIN \
             (SELECT no_w_id, no_d_id, count(*) AS orders FROM new_order GROUP BY no_w_id, no_d_id) AS n \
             ON no_w_id = c_w_id AND no_d_id = c_d_id \
             WHERE coalesce(o.orders, 0) - coalesce(n.orders, 0) <> c.delivered",
    },
    Condition {
        clause: "3.3.2.12",
        statement: "C_BALANCE + C_YTD_PAYMENT = sum(OL_AMOUNT) delivered of each customer",
        violations: "SELECT count(*) FROM customer LEFT JOIN \
             (SELECT o_w_id, o_d_id, o_c_id, sum(ol_amount) AS amount FROM orders JOIN order_line \
             ON ol_w_id = o_w_id AND ol_d_id = o_d_id AND ol_o_id = o_id WHERE ol_delivery_d IS NOT NULL \
             GROUP BY o_w_id, o_d_id, o_c_id) AS l ON o_w_id = c_w_id AND o_d_id = c_d_id AND o_c_id = c_id \
             WHERE c_balance + c_ytd_payment <> coalesce(l.amount, 0)",
    },
];

/// The result for one condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionReport {
    /// Clause of the specification.
    pub clause: String,
    /// What must hold.
    pub statement: String,
    /// Rows (warehouses, districts, orders, lines or customers) for which it does not.
    pub violations: i64,
}

/// The result of a check.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CheckReport {
    /// Cardinalities found.
    pub scale: Scale,
    /// All conditions in the specification's order.
    pub conditions: Vec<ConditionReport>,
    /// How long it took.
    pub seconds: f64,
}

impl CheckReport {
    /// The verdict: no condition is violated.
    pub fn is_consistent(&self) -> bool {
        self.violated().next().is_none()
    }

    /// The conditions that are violated.
    pub fn violated(&self) -> impl Iterator<Item = &ConditionReport> {
        self.conditions.iter().filter(|condition| condition.violations > 0)
    }
}

impl std::fmt::Display for CheckReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "Consistency of {}:", self.scale)?;
        for condition in &self.conditions {
            let verdict = match condition.violations {
                0 => "holds".to_owned(),
                1 => "1 violation".to_owned(),
                more => format!("{more} violations"),
            };
            writeln!(f, "  {:<9} {}: {verdict}", condition.clause, condition.statement)?;
        }
        let verdict = if self.is_consistent() { "CONSISTENT" } else { "NOT CONSISTENT" };
        write!(f, "{verdict} ({:.1} s)", self.seconds)
    }
}

/// Checks the twelve conditions in one snapshot.
///
/// # Errors
/// [`Error::NotLoaded`], connection and statement errors; violations are in the report.
pub async fn check(connection: &Connection) -> Result<CheckReport, Error> {
    let started = Instant::now();
    let mut session = connection.open().await?;
    let scale = Scale::of_database(&session.client).await?;
    let transaction = session
        .client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await
        .map_err(Error::statement("beginning the check"))?;
    let mut conditions = Vec::with_capacity(CONDITIONS.len());
    for condition in &CONDITIONS {
        let doing = format!("checking condition {}", condition.clause);
        let row = transaction
            .query_one(condition.violations, &[])
            .await
            .map_err(Error::statement(doing.as_str()))?;
        conditions.push(ConditionReport {
            clause: condition.clause.to_owned(),
            statement: condition.statement.to_owned(),
            violations: row.try_get(0).map_err(Error::statement(doing))?,
        });
    }
    transaction.commit().await.map_err(Error::statement("ending the check"))?;
    Ok(CheckReport { scale, conditions, seconds: started.elapsed().as_secs_f64() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_names_what_is_violated() {
        let condition = |clause: &str, violations| ConditionReport {
            clause: clause.to_owned(),
            statement: "something".to_owned(),
            violations,
        };
        let mut report = CheckReport {
            scale: Scale::specification(1),
            conditions: vec![condition("3.3.2.1", 0), condition("3.3.2.2", 0)],
            seconds: 0.0,
        };
        assert!(report.is_consistent());
        report.conditions[1].violations = 3;
        assert!(!report.is_consistent());
        let text = report.to_string();
        assert!(text.contains("something: 3 violations") && text.contains("NOT CONSISTENT"), "{text}");
    }
}
