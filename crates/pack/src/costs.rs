//! What a layer costs: work on either side in proportion to a few counts, and the link between them.
//!
//! The factors are measured on a machine by running a network of known shapes through the whole pipeline (the facade's
//! calibration); here they are only numbers. They decide about speed and traffic, never about security: parameters
//! follow from shapes whatever the costs are.

use serde::{Deserialize, Serialize};

/// Counts that the cost of a layer follows from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerCounts {
    /// Ring degree `N`.
    pub degree: usize,
    /// Sum of the primes' sizes, in bits.
    pub modulus_bits: u32,
    /// Number of primes.
    pub limbs: usize,
    /// Ring elements of one input of the matrix, all blocks together.
    pub tiles: usize,
    /// Ring elements of a row: the tiles of its block.
    pub row_tiles: usize,
    /// Inputs of the matrix that one image becomes.
    pub strips: usize,
    /// Rows of the matrix.
    pub rows: usize,
    /// How many of these are computed modulo the first prime alone.
    pub short_rows: usize,
    /// Size of that prime, in bits.
    pub first_bits: u32,
    /// Wanted coefficients of a row.
    pub wanted: usize,
    /// Numbers that go into and come out of the layer.
    pub values: usize,
}

/// Number of factors for each side.
pub const FACTORS: usize = 5;

impl LayerCounts {
    /// What the client's factors multiply: the layer itself, values, and residues of tiles, rows, wanted coefficients.
    pub fn client(&self) -> [f64; FACTORS] {
        let row_limbs = self.row_limbs();
        [
            1.0,
            self.values as f64,
            (self.strips * self.tiles * self.degree * self.limbs) as f64,
            (self.strips * row_limbs * self.degree) as f64,
            (self.strips * row_limbs * self.wanted) as f64,
        ]
    }

    /// What the server's factors multiply: the layer itself, and residues of tiles, products, rows, wanted coefficients.
    pub fn server(&self) -> [f64; FACTORS] {
        let row_limbs = self.row_limbs();
        [
            1.0,
            (self.strips * self.tiles * self.degree * self.limbs) as f64,
            (self.strips * self.row_tiles * row_limbs * self.degree) as f64,
            (self.strips * row_limbs * self.degree) as f64,
            (self.strips * row_limbs * self.wanted) as f64,
        ]
    }

    /// Primes of all rows together.
    fn row_limbs(&self) -> usize {
        (self.rows - self.short_rows) * self.limbs + self.short_rows
    }

    /// Bytes of a request, without its header.
    pub fn bytes_up(&self) -> usize {
        self.strips * self.tiles * self.degree * self.modulus_bits as usize / 8
    }

    /// Bytes of an answer, without its header.
    pub fn bytes_down(&self) -> usize {
        self.row_bytes(self.wanted)
    }

    /// Bytes both ways.
    pub fn bytes(&self) -> usize {
        self.bytes_up() + self.bytes_down()
    }

    /// Bytes of so many coefficients of every row.
    fn row_bytes(&self, coefficients: usize) -> usize {
        let row = |bits: u32| (coefficients * bits as usize).div_ceil(8);
        self.strips * ((self.rows - self.short_rows) * row(self.modulus_bits) + self.short_rows * row(self.first_bits))
    }

    /// Bytes of an answer of another kind beyond those of one that is built.
    pub fn more_bytes(&self, answer: Unbuilt) -> usize {
        self.row_bytes(self.more_coefficients(answer))
    }

    /// The same in coefficients of a row.
    fn more_coefficients(&self, answer: Unbuilt) -> usize {
        match answer {
            Unbuilt::WholeRows => self.degree.saturating_sub(self.wanted),
            Unbuilt::SecondComponent => self.degree,
        }
    }

    /// Bytes of so many hidden rows as they are sealed.
    pub fn hidden_bytes(&self, rows: usize) -> usize {
        self.row_tiles * rows * self.degree * self.modulus_bits as usize / 8
    }

    /// Products of ring elements modulo one prime that the server does for an image.
    pub fn products(&self) -> usize {
        self.strips * self.row_tiles * self.row_limbs()
    }
}

/// Nanoseconds per unit of [`LayerCounts::client`] and [`LayerCounts::server`], wall time with all threads at work.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// The client's factors.
    pub client: [f64; FACTORS],
    /// The server's factors.
    pub server: [f64; FACTORS],
}

/// The way between client and server.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// There and back, in milliseconds.
    pub rtt_ms: f64,
    /// Capacity in either direction, in megabits per second; 0 stands for no limit.
    pub mbit_per_s: f64,
}

impl Link {
    /// The same machine.
    pub const LOOPBACK: Self = Self { rtt_ms: 0.0, mbit_per_s: 0.0 };
    /// A local network.
    pub const LAN: Self = Self { rtt_ms: 0.3, mbit_per_s: 1000.0 };
    /// A wide-area network.
    pub const WAN: Self = Self { rtt_ms: 40.0, mbit_per_s: 100.0 };

    /// Milliseconds for one request and its answer.
    pub fn ms(&self, bytes: usize) -> f64 {
        let transfer = if self.mbit_per_s > 0.0 { bytes as f64 * 8.0 / (self.mbit_per_s * 1e3) } else { 0.0 };
        self.rtt_ms + transfer
    }
}

impl std::str::FromStr for Link {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "loopback" => return Ok(Self::LOOPBACK),
            "lan" => return Ok(Self::LAN),
            "wan" => return Ok(Self::WAN),
            _ => {}
        }
        let form = || {
            format!(
                "\"{text}\" is no link: say loopback, lan, wan, or RTT,MBPS in milliseconds and megabits per second"
            )
        };
        let (rtt, rate) = text.split_once(',').ok_or_else(form)?;
        let (rtt_ms, mbit_per_s): (f64, f64) =
            (rtt.trim().parse().map_err(|_| form())?, rate.trim().parse().map_err(|_| form())?);
        let sensible = (0.0..=60_000.0).contains(&rtt_ms) && (0.001..=1e7).contains(&mbit_per_s);
        if sensible { Ok(Self { rtt_ms, mbit_per_s }) } else { Err(form()) }
    }
}

/// All that the choice of rings and layouts weighs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// Layers with hidden rows.
    pub hidden: Work,
    /// Layers without.
    pub open: Work,
    /// The link.
    pub link: Link,
}

/// What a layer is expected to take for one image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// Milliseconds of the client.
    pub client_ms: f64,
    /// Milliseconds of the server.
    pub server_ms: f64,
    /// Milliseconds on the link.
    pub link_ms: f64,
}

impl Prediction {
    /// All together.
    pub fn total_ms(&self) -> f64 {
        self.client_ms + self.server_ms + self.link_ms
    }
}

/// Answers that were weighed and not built: the cost model computes what they would take at least, so that it stays visible whether they are worth it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unbuilt {
    /// Whole rows in the NTT domain: no transform on the server, and all coefficients for the client to decode and check.
    WholeRows,
    /// A second component, `sum_i W~[o][i]*a_x[i]` with `a_x` from a seed of the request, instead of hints. To multiply it with `s` the client
    /// needs all its coefficients.
    SecondComponent,
}

impl Unbuilt {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::WholeRows, Self::SecondComponent];
}

/// Which part of the client's work on a wanted coefficient is decoding and checking it: two fifths by timers around the stages of vgg3 (`docs/performance.md`),
/// rounded down. The rest, recomposing above all, is for wanted coefficients alone.
const CHECKING: f64 = 0.33;

fn weigh(factors: &[f64; FACTORS], counts: &[f64; FACTORS]) -> f64 {
    factors.iter().zip(counts).map(|(f, c)| f * c).sum::<f64>() / 1e6
}

impl Costs {
    /// What a layer will take.
    pub fn predict(&self, counts: &LayerCounts, hidden: bool) -> Prediction {
        let work = if hidden { &self.hidden } else { &self.open };
        Prediction {
            client_ms: weigh(&work.client, &counts.client()),
            server_ms: weigh(&work.server, &counts.server()),
            link_ms: self.link.ms(counts.bytes()),
        }
    }

    /// What a layer would take at least with an answer that is not built: what it would save counts in full, of what it would cost more only packing,
    /// decoding, checking and the link.
    pub fn predict_unbuilt(&self, counts: &LayerCounts, hidden: bool, answer: Unbuilt) -> Prediction {
        let work = if hidden { &self.hidden } else { &self.open };
        let [.., server_row, server_wanted] = work.server;
        let row_limbs = (counts.strips * counts.row_limbs()) as f64;
        let saved = match answer {
            Unbuilt::WholeRows => row_limbs * counts.degree as f64 * server_row,
            Unbuilt::SecondComponent => 0.0,
        };
        let residues = row_limbs * counts.more_coefficients(answer) as f64;
        let built = self.predict(counts, hidden);
        let bytes = counts.bytes() + counts.more_bytes(answer);
        Prediction {
            client_ms: built.client_ms + residues * CHECKING * work.client[FACTORS - 1] / 1e6,
            server_ms: built.server_ms + (residues * server_wanted - saved) / 1e6,
            link_ms: self.link.ms(bytes),
        }
    }

    /// The same costs over another link.
    pub fn over(self, link: Link) -> Self {
        Self { link, ..self }
    }
}

impl Default for Costs {
    /// Measured by the calibration on two cores of a Xeon (Cascade Lake, 2.5 GHz, kernel `avx512`).
    fn default() -> Self {
        let hidden = Work { client: [2e5, 2.0, 20.0, 2.5, 15.0], server: [4e4, 5.5, 0.6, 3.0, 6.5] };
        let open = Work { client: [1e5, 8.0, 30.0, 3.0, 20.0], server: [2e4, 6.0, 0.6, 4.0, 5.0] };
        Self { hidden, open, link: Link::LOOPBACK }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_are_not_built_cost_bytes_and_save_transforms() {
        let counts = LayerCounts {
            degree: 4096,
            modulus_bits: 68,
            limbs: 2,
            tiles: 5,
            row_tiles: 5,
            strips: 1,
            rows: 10,
            short_rows: 0,
            first_bits: 34,
            wanted: 1024,
            values: 1000,
        };
        let free = Costs::default();
        let built = free.predict(&counts, true);
        let whole = free.predict_unbuilt(&counts, true, Unbuilt::WholeRows);
        let second = free.predict_unbuilt(&counts, true, Unbuilt::SecondComponent);
        // 20 rows and primes; by the factors above: 3072 residues more at 6.5 ns, 4096 at 3 ns less.
        assert!((whole.server_ms - built.server_ms - 20.0 * (3072.0 * 6.5 - 4096.0 * 3.0) / 1e6).abs() < 1e-9);
        assert!(whole.client_ms > built.client_ms && second.client_ms > whole.client_ms);
        assert!(second.server_ms > built.server_ms && whole.link_ms == 0.0);
        // 3072 and 4096 coefficients of 68 bits of each row, at 100 Mbit/s.
        let wan = free.over(Link::WAN);
        let more = |answer| wan.predict_unbuilt(&counts, true, answer).link_ms - wan.predict(&counts, true).link_ms;
        assert!((more(Unbuilt::WholeRows) - 10.0 * 3072.0 * 68.0 / 1e5).abs() < 1e-9);
        assert!((more(Unbuilt::SecondComponent) - 10.0 * 4096.0 * 68.0 / 1e5).abs() < 1e-9);
    }

    #[test]
    fn links_are_read_or_refused_with_a_remedy() {
        assert_eq!("wan".parse(), Ok(Link::WAN));
        assert_eq!("12.5, 300".parse(), Ok(Link { rtt_ms: 12.5, mbit_per_s: 300.0 }));
        for bad in ["", "modem", "1", "a,b", "-1,10", "1,0", "NaN,1", "1,inf"] {
            assert!(bad.parse::<Link>().unwrap_err().contains("RTT,MBPS"), "{bad}");
        }
        // 1.25 MB at 100 Mbit/s are 100 ms.
        assert!((Link::WAN.ms(1_250_000) - 140.0).abs() < 1e-9);
        assert_eq!(Link::LOOPBACK.ms(1 << 40), 0.0);
    }
}
