//! What each directed pair of sites is like, read from TOML.

use crate::Distances;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use steeldb_types::ReplicaId;

/// What a directed pair of sites is like.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    /// One way, milliseconds.
    pub latency_ms: f64,
    /// Its standard deviation, milliseconds. Delays are normally distributed and never below half of the latency.
    #[serde(default)]
    pub jitter_ms: f64,
    /// Megabits per second, shared by all connections of the pair; nothing: unlimited.
    #[serde(default)]
    pub bandwidth_mbit: Option<f64>,
    /// The chance that a segment is lost, 0 to 1. It then arrives after a retransmission time-out.
    #[serde(default)]
    pub loss: f64,
    /// That time-out, milliseconds.
    #[serde(default = "retransmission_ms")]
    pub retransmission_ms: f64,
}

/// Linux' least retransmission time-out.
fn retransmission_ms() -> f64 {
    200.0
}

impl Default for Conditions {
    fn default() -> Conditions {
        Conditions {
            latency_ms: 0.0,
            jitter_ms: 0.0,
            bandwidth_mbit: None,
            loss: 0.0,
            retransmission_ms: retransmission_ms(),
        }
    }
}

impl Conditions {
    /// Checks that every number is one that can be.
    ///
    /// # Errors
    /// Which is not, and why.
    pub fn check(&self) -> Result<(), String> {
        const DAY_MS: f64 = 86_400_000.0;
        let times = [self.latency_ms, self.jitter_ms, self.retransmission_ms];
        for (name, value) in ["latency_ms", "jitter_ms", "retransmission_ms"].into_iter().zip(times) {
            if !(0.0..=DAY_MS).contains(&value) {
                return Err(format!("{name} is {value}; it must be between 0 and a day"));
            }
        }
        if !(0.0..1.0).contains(&self.loss) {
            return Err(format!("loss is {}; it must be at least 0 and less than 1", self.loss));
        }
        match self.bandwidth_mbit {
            Some(rate) if !(0.001..=1e9).contains(&rate) => {
                Err(format!("bandwidth_mbit is {rate}; it must be at least 0.001"))
            }
            _ => Ok(()),
        }
    }
}

/// Sites and what is between them.
#[derive(Clone, PartialEq, Debug)]
pub struct Matrix {
    sites: BTreeSet<String>,
    pairs: BTreeMap<(String, String), Conditions>,
}

/// Why a matrix was refused.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum MatrixError {
    /// Not the TOML that is expected; says where.
    #[error("{0}")]
    Syntax(String),
    /// A site that is not in `sites`, or named twice there.
    #[error("site {0:?} is unknown or repeated")]
    Site(String),
    /// A pair that is given twice.
    #[error("the pair from {0:?} to {1:?} is given twice")]
    Repeated(String, String),
    /// A pair that is not given.
    #[error("the pair from {0:?} to {1:?} is not given")]
    Missing(String, String),
    /// A number that cannot be.
    #[error("from {0:?} to {1:?}: {2}")]
    Value(String, String, String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    sites: Vec<String>,
    #[serde(default)]
    local: Conditions,
    #[serde(default)]
    pair: Vec<Entry>,
}

/// Both directions by their round trip, or one direction.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    between: Option<[String; 2]>,
    round_trip_ms: Option<f64>,
    #[serde(default)]
    round_trip_sd_ms: f64,
    from: Option<String>,
    to: Option<String>,
    latency_ms: Option<f64>,
    #[serde(default)]
    jitter_ms: f64,
    bandwidth_mbit: Option<f64>,
    #[serde(default)]
    loss: f64,
    #[serde(default = "retransmission_ms")]
    retransmission_ms: f64,
}

impl Entry {
    /// The directed pairs and what they are like.
    fn directed(self) -> Result<(Vec<(String, String)>, Conditions), MatrixError> {
        let rest = Conditions {
            bandwidth_mbit: self.bandwidth_mbit,
            loss: self.loss,
            retransmission_ms: self.retransmission_ms,
            ..Conditions::default()
        };
        match (self.between, self.round_trip_ms, self.from, self.to, self.latency_ms) {
            (Some([a, b]), Some(round_trip), None, None, None) if self.jitter_ms == 0.0 => {
                // Two independent halves: their variances add up to the round trip's.
                let jitter_ms = self.round_trip_sd_ms / 2f64.sqrt();
                let conditions = Conditions { latency_ms: round_trip / 2.0, jitter_ms, ..rest };
                Ok((vec![(a.clone(), b.clone()), (b, a)], conditions))
            }
            (None, None, Some(from), Some(to), Some(latency_ms)) if self.round_trip_sd_ms == 0.0 => {
                Ok((vec![(from, to)], Conditions { latency_ms, jitter_ms: self.jitter_ms, ..rest }))
            }
            _ => Err(MatrixError::Syntax(
                "a [[pair]] has either `between`, `round_trip_ms` and `round_trip_sd_ms`, or `from`, `to`, `latency_ms` and `jitter_ms`"
                    .into(),
            )),
        }
    }
}

impl Matrix {
    /// Reads a matrix.
    ///
    /// # Errors
    /// [`MatrixError`] says what is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Matrix, MatrixError> {
        let file: File = toml::from_str(text).map_err(|error| MatrixError::Syntax(error.to_string()))?;
        let mut sites = BTreeSet::new();
        let mut pairs = BTreeMap::new();
        for site in file.sites {
            pairs.insert((site.clone(), site.clone()), file.local);
            if !sites.insert(site.clone()) {
                return Err(MatrixError::Site(site));
            }
        }
        let locals: BTreeSet<(String, String)> = pairs.keys().cloned().collect();
        for entry in file.pair {
            let (directed, conditions) = entry.directed()?;
            for (from, to) in directed {
                if let Some(unknown) = [&from, &to].into_iter().find(|site| !sites.contains(*site)) {
                    return Err(MatrixError::Site(unknown.clone()));
                }
                let pair = (from, to);
                if pairs.insert(pair.clone(), conditions).is_some() && !locals.contains(&pair) {
                    return Err(MatrixError::Repeated(pair.0, pair.1));
                }
            }
        }
        for ((from, to), conditions) in &pairs {
            conditions.check().map_err(|reason| MatrixError::Value(from.clone(), to.clone(), reason))?;
        }
        for from in &sites {
            for to in &sites {
                if !pairs.contains_key(&(from.clone(), to.clone())) {
                    return Err(MatrixError::Missing(from.clone(), to.clone()));
                }
            }
        }
        Ok(Matrix { sites, pairs })
    }

    /// Sites that are all alike to each other.
    pub fn uniform(sites: impl IntoIterator<Item = String>, conditions: Conditions) -> Matrix {
        let sites: BTreeSet<String> = sites.into_iter().collect();
        let pairs = sites.iter().flat_map(|from| sites.iter().map(move |to| (from.clone(), to.clone())));
        let pairs = pairs.map(|pair| (pair, conditions)).collect();
        Matrix { sites, pairs }
    }

    /// The sites, in the order of their names.
    pub fn sites(&self) -> impl Iterator<Item = &str> {
        self.sites.iter().map(String::as_str)
    }

    /// Every directed pair, a site with itself included.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str, Conditions)> {
        self.pairs.iter().map(|((from, to), conditions)| (from.as_str(), to.as_str(), *conditions))
    }

    /// Mean round trip between two sites, milliseconds; nothing when one is unknown.
    pub fn round_trip_ms(&self, a: &str, b: &str) -> Option<f64> {
        let latency =
            |from: &str, to: &str| Some(self.pairs.get(&(from.to_string(), to.to_string()))?.latency_ms);
        Some(latency(a, b)? + latency(b, a)?)
    }

    /// The mean latencies between replicas at sites, and between them and a client at a site.
    ///
    /// # Errors
    /// [`MatrixError::Site`]: a site that is not in the matrix.
    pub fn distances<'a>(
        &self,
        replicas: impl IntoIterator<Item = (ReplicaId, &'a str)>,
        client: &str,
    ) -> Result<Distances, MatrixError> {
        let replicas: Vec<(ReplicaId, &str)> = replicas.into_iter().collect();
        let sites = replicas.iter().map(|(_, site)| *site).chain([client]);
        if let Some(unknown) = sites.into_iter().find(|site| !self.sites.contains(*site)) {
            return Err(MatrixError::Site(unknown.into()));
        }
        // Every pair of known sites is there.
        let ms = |from: &str, to: &str| self.pairs[&(from.to_string(), to.to_string())].latency_ms;
        let mut distances = Distances::default();
        for (from, site) in &replicas {
            distances.set_client(*from, ms(client, site), ms(site, client));
            for (to, other) in &replicas {
                distances.set(*from, *to, ms(site, other));
            }
        }
        Ok(distances)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_matrix_has_every_pair() {
        let matrix = Matrix::parse(crate::EC2).unwrap();
        assert_eq!(matrix.sites().count(), 5);
        assert_eq!(matrix.pairs().count(), 25);
        assert_eq!(matrix.round_trip_ms("oregon", "ireland"), Some(171.0));
        assert_eq!(matrix.round_trip_ms("sydney", "sao-paulo"), Some(359.0));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |text: &str| Matrix::parse(text).unwrap_err().to_string();
        assert!(refused("sites = ['a', 'b']").contains("\"a\" to \"b\" is not given"));
        assert!(refused("sites = ['a', 'a']").contains("\"a\" is unknown or repeated"));
        assert!(refused("sites = ['a']\nsite = 1").contains("site"));
        let pair = |rest: &str| refused(&format!("sites = ['a', 'b']\n[[pair]]\n{rest}"));
        assert!(pair("between = ['a', 'c']\nround_trip_ms = 1").contains("\"c\""));
        assert!(pair("between = ['a', 'b']").contains("either"));
        assert!(pair("between = ['a', 'b']\nround_trip_ms = -1").contains("latency_ms is -0.5"));
        assert!(pair("between = ['a', 'b']\nround_trip_ms = 1\nloss = 1").contains("loss is 1"));
        let twice = "between = ['a', 'b']\nround_trip_ms = 1\n[[pair]]\nfrom = 'a'\nto = 'b'\nlatency_ms = 1";
        assert!(pair(twice).contains("given twice"));
    }
}
