//! The random quantities of TPC-C (clauses 2.1.6, 4.3.2 and 4.3.3).
//!
//! Every user of randomness owns a [`TpccRandom`] made from the seed and a stream number, so that a load or
//! the inputs of a terminal do not depend on how the work was spread over tasks.

use rand::{Rng, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

/// The syllables of customer last names, in the order of their digits (4.3.2.3).
const SYLLABLES: [&str; 10] =
    ["BAR", "OUGHT", "ABLE", "PRI", "PRES", "ESE", "ANTI", "CALLY", "ATION", "EING"];

const ALPHANUMERIC: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const DIGITS: &[u8] = b"0123456789";

/// C-Load of C_LAST. Fixed, because a run must know the constant of the load it works on (2.1.6.1).
pub const C_LOAD_LAST: u32 = 157;

/// The constant C of NURand, one per field; the same for all terminals of a run (2.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NuRandConstants {
    /// C for C_LAST, with A = 255.
    pub last_name: u32,
    /// C for C_ID, with A = 1023.
    pub customer: u32,
    /// C for OL_I_ID, with A = 8191.
    pub item: u32,
}

impl NuRandConstants {
    /// The constants of a load. Only C_LAST is drawn while loading.
    pub fn for_load() -> Self {
        Self { last_name: C_LOAD_LAST, customer: 0, item: 0 }
    }

    /// Draws the constants of a run; C-Run of C_LAST keeps the distance to C-Load that 2.1.6.1 asks for.
    pub fn for_run(random: &mut TpccRandom) -> Self {
        let allowed: Vec<u32> = (0..=255).filter(|c_run| is_c_run_allowed(*c_run)).collect();
        let last_name = allowed[random.between(0, allowed.len() as i32 - 1) as usize];
        Self { last_name, customer: random.between(0, 1023) as u32, item: random.between(0, 8191) as u32 }
    }
}

/// 2.1.6.1: |C-Run - C-Load| lies in [65 .. 119] and is neither 96 nor 112.
fn is_c_run_allowed(c_run: u32) -> bool {
    let delta = c_run.abs_diff(C_LOAD_LAST);
    (65..=119).contains(&delta) && delta != 96 && delta != 112
}

/// The last name for a number in [0 .. 999]: one syllable per decimal digit (4.3.2.3).
pub fn last_name(number: u32) -> String {
    [number / 100 % 10, number / 10 % 10, number % 10].map(|digit| SYLLABLES[digit as usize]).concat()
}

/// One stream of random quantities.
#[derive(Clone, Debug)]
pub struct TpccRandom {
    rng: ChaCha8Rng,
}

impl TpccRandom {
    /// The stream with this number among those that the seed gives.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        Self { rng }
    }

    /// Uniform in [low .. high], both ends included.
    pub fn between(&mut self, low: i32, high: i32) -> i32 {
        debug_assert!(low <= high, "empty range [{low} .. {high}]");
        self.rng.random_range(low..=high)
    }

    /// True for `percent` draws in a hundred.
    pub fn percent(&mut self, percent: i32) -> bool {
        self.between(1, 100) <= percent
    }

    /// Uniform in (0 .. 1].
    pub fn unit(&mut self) -> f64 {
        1.0 - self.rng.random::<f64>()
    }

    /// NURand(A, low, high) with the constant C (2.1.6).
    pub fn nurand(&mut self, a: u32, c: u32, low: i32, high: i32) -> i32 {
        let mixed = self.between(0, a as i32) | self.between(low, high);
        (mixed + c as i32) % (high - low + 1) + low
    }

    /// A customer number in [1 .. customers], NURand(1023, ..).
    pub fn customer_id(&mut self, constants: &NuRandConstants, customers: i32) -> i32 {
        self.nurand(1023, constants.customer, 1, customers)
    }

    /// An item number in [1 .. items], NURand(8191, ..).
    pub fn item_id(&mut self, constants: &NuRandConstants, items: i32) -> i32 {
        self.nurand(8191, constants.item, 1, items)
    }

    /// A last name, NURand(255, 0, 999). Scaled-down districts know only the first `customers` names.
    pub fn last_name(&mut self, constants: &NuRandConstants, customers: i32) -> String {
        last_name(self.nurand(255, constants.last_name, 0, customers.clamp(1, 1000) - 1) as u32)
    }

    /// A warehouse other than `home`, uniformly; `home` itself when there is only one.
    pub fn other_warehouse(&mut self, home: i32, warehouses: i32) -> i32 {
        if warehouses <= 1 {
            return home;
        }
        let drawn = self.between(1, warehouses - 1);
        if drawn >= home { drawn + 1 } else { drawn }
    }

    /// Random a-string of [low .. high] alphanumeric characters (4.3.2.2).
    pub fn a_string(&mut self, low: i32, high: i32) -> String {
        self.string(ALPHANUMERIC, low, high)
    }

    /// Random n-string of [low .. high] digits (4.3.2.2).
    pub fn n_string(&mut self, low: i32, high: i32) -> String {
        self.string(DIGITS, low, high)
    }

    /// Two letters, as in the STATE columns.
    pub fn state(&mut self) -> String {
        self.string(LETTERS, 2, 2)
    }

    /// Four random digits and "11111" (4.3.2.7).
    pub fn zip(&mut self) -> String {
        self.n_string(4, 4) + "11111"
    }

    /// I_DATA or S_DATA: 26 to 50 characters; one in ten holds "ORIGINAL" at a random place (4.3.3.1).
    pub fn data(&mut self) -> String {
        let mut data = self.a_string(26, 50);
        if self.percent(10) {
            let position = self.between(0, data.len() as i32 - 8) as usize;
            data.replace_range(position..position + 8, "ORIGINAL");
        }
        data
    }

    /// The numbers [1 .. count] in random order.
    pub fn permutation(&mut self, count: i32) -> Vec<i32> {
        let mut numbers: Vec<i32> = (1..=count).collect();
        self.shuffle(&mut numbers);
        numbers
    }

    /// Shuffles in place.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        items.shuffle(&mut self.rng);
    }

    fn string(&mut self, alphabet: &[u8], low: i32, high: i32) -> String {
        let length = self.between(low, high);
        (0..length).map(|_| char::from(alphabet[self.rng.random_range(0..alphabet.len())])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_names_follow_the_syllables() {
        assert_eq!(last_name(0), "BARBARBAR");
        assert_eq!(last_name(371), "PRICALLYOUGHT");
        assert_eq!(last_name(999), "EINGEINGEING");
        let longest = (0..1000).map(|number| last_name(number).len()).max();
        assert!(longest <= Some(16), "C_LAST is varchar(16)");
    }

    #[test]
    fn nurand_covers_its_range_and_stays_inside() {
        let mut random = TpccRandom::new(1, 0);
        let constants = NuRandConstants::for_run(&mut random);
        let mut seen = vec![0u32; 3001];
        for _ in 0..200_000 {
            seen[random.customer_id(&constants, 3000) as usize] += 1;
            let item = random.item_id(&constants, 100_000);
            assert!((1..=100_000).contains(&item));
        }
        assert_eq!(seen[0], 0);
        assert!(seen[1] > 0 && seen[3000] > 0);
        // Not uniform: the most frequent tenth gets far more than a tenth.
        seen.sort_unstable();
        let hot: u32 = seen[2701..].iter().sum();
        assert!(hot > 40_000, "the hottest tenth of customers got {hot} of 200000 draws");
    }

    #[test]
    fn nurand_ranges_hold_when_scaled_down() {
        let mut random = TpccRandom::new(2, 0);
        let constants = NuRandConstants::for_run(&mut random);
        for _ in 0..10_000 {
            assert!((1..=7).contains(&random.customer_id(&constants, 7)));
            assert!((1..=50).contains(&random.item_id(&constants, 50)));
            let name = random.last_name(&constants, 7);
            assert!((0..7).any(|number| last_name(number) == name));
        }
    }

    #[test]
    fn c_run_keeps_its_distance_from_c_load() {
        for seed in 0..500 {
            let constants = NuRandConstants::for_run(&mut TpccRandom::new(seed, 0));
            let delta = constants.last_name.abs_diff(C_LOAD_LAST);
            assert!((65..=119).contains(&delta) && delta != 96 && delta != 112, "seed {seed}");
            assert!(constants.last_name <= 255 && constants.customer <= 1023 && constants.item <= 8191);
        }
    }

    #[test]
    fn one_data_string_in_ten_is_original() {
        let mut random = TpccRandom::new(3, 0);
        let original = (0..20_000).filter(|_| random.data().contains("ORIGINAL")).count();
        assert!((1_800..=2_200).contains(&original), "{original} of 20000");
    }

    #[test]
    fn strings_have_the_lengths_asked_for() {
        let mut random = TpccRandom::new(4, 0);
        for _ in 0..1000 {
            assert!((8..=16).contains(&random.a_string(8, 16).len()));
            assert!((26..=50).contains(&random.data().len()));
            let zip = random.zip();
            assert!(zip.len() == 9 && zip.ends_with("11111") && zip.bytes().all(|b| b.is_ascii_digit()));
        }
    }

    #[test]
    fn other_warehouse_is_uniform_over_the_others() {
        let mut random = TpccRandom::new(5, 0);
        let mut seen = [0; 6];
        for _ in 0..10_000 {
            seen[random.other_warehouse(3, 5) as usize] += 1;
        }
        assert_eq!((seen[0], seen[3]), (0, 0));
        assert!([1, 2, 4, 5].iter().all(|w| (2_200..=2_800).contains(&seen[*w])), "{seen:?}");
        assert_eq!(random.other_warehouse(1, 1), 1);
    }

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let draw = |stream| TpccRandom::new(9, stream).a_string(40, 40);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn permutation_holds_every_number_once() {
        let mut permutation = TpccRandom::new(6, 0).permutation(300);
        permutation.sort_unstable();
        assert!(permutation.into_iter().eq(1..=300));
    }
}
