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
    /// What comes back.
    pub answer: Answer,
    /// Numbers that go into and come out of the layer.
    pub values: usize,
}

/// What comes back for a layer: of rows the wanted coefficients or everything in the NTT domain, and hints with them or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answer {
    /// Whole rows in the NTT domain: no transform on the server, and all coefficients for both sides to pack, decode and check.
    pub whole_rows: bool,
    /// A second component, the hints of all rows, once for a request: the client keeps none.
    pub second_component: bool,
}

impl Answer {
    /// Those that are weighed with every layout: wanted coefficients, whole rows, and the first with a second component. The last is taken only where a client
    /// has no room for hints: it costs their bytes with every request.
    pub const WEIGHED: [Self; 3] = [
        Self { whole_rows: false, second_component: false },
        Self { whole_rows: true, second_component: false },
        Self { whole_rows: false, second_component: true },
    ];
}

/// What a further input of a matrix costs of the first, which reads it for all of them. Open layers of vgg3 and MiniONN's network in two strips took 0.75 to 1.0 times as long
/// as two inputs that cost the same would (`jali explain`).
const FURTHER: f64 = 0.85;

/// Number of factors for each side.
pub const FACTORS: usize = 7;

impl LayerCounts {
    /// What the client's factors multiply: the layer itself, values, and residues of tiles, rows, all that comes back, wanted coefficients, a second
    /// component.
    pub fn client(&self) -> [f64; FACTORS] {
        let (row_limbs, inputs) = (self.row_limbs() as f64, self.inputs());
        [
            1.0,
            self.values as f64,
            inputs * (self.tiles * self.degree * self.limbs) as f64,
            inputs * row_limbs * self.degree as f64,
            inputs * row_limbs * self.returned() as f64,
            inputs * row_limbs * self.wanted as f64,
            if self.answer.second_component { row_limbs * self.degree as f64 } else { 0.0 },
        ]
    }

    /// What the server's factors multiply: the layer itself, and residues of tiles, products, rows that are transformed, all that comes back; and of a
    /// second component the tiles of the public vector, which are drawn anew, and the products with it.
    pub fn server(&self) -> [f64; FACTORS] {
        let (row_limbs, inputs) = (self.row_limbs() as f64, self.inputs());
        let transformed = if self.answer.whole_rows { 0.0 } else { row_limbs };
        let second = if self.answer.second_component { self.degree as f64 } else { 0.0 };
        [
            1.0,
            inputs * (self.tiles * self.degree * self.limbs) as f64,
            inputs * row_limbs * (self.row_tiles * self.degree) as f64,
            inputs * transformed * self.degree as f64,
            inputs * row_limbs * self.returned() as f64,
            (self.tiles * self.limbs) as f64 * second,
            // A row's tiles are read, and it is packed.
            (self.row_tiles + 1) as f64 * row_limbs * second,
        ]
    }

    /// Inputs of the matrix, in what one of them costs.
    fn inputs(&self) -> f64 {
        1.0 + FURTHER * (self.strips as f64 - 1.0)
    }

    /// Coefficients or values of a row that come back.
    fn returned(&self) -> usize {
        if self.answer.whole_rows { self.degree } else { self.wanted }
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
        let second = if self.answer.second_component { self.row_bytes(self.degree) } else { 0 };
        self.strips * self.row_bytes(self.returned()) + second
    }

    /// Bytes both ways.
    pub fn bytes(&self) -> usize {
        self.bytes_up() + self.bytes_down()
    }

    /// Bytes of so many coefficients of every row.
    fn row_bytes(&self, coefficients: usize) -> usize {
        let row = |bits: u32| (coefficients * bits as usize).div_ceil(8);
        (self.rows - self.short_rows) * row(self.modulus_bits) + self.short_rows * row(self.first_bits)
    }

    /// The same layer with another answer.
    pub fn answered(self, answer: Answer) -> Self {
        Self { answer, ..self }
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
    /// The link: not measured, so not stored.
    #[serde(skip, default = "loopback")]
    pub link: Link,
    /// Most bytes of hints, and of the rows' secrets beside them, that a client may keep in memory for all layers together: the hints of the others come as a
    /// second component with every answer. A limit and nothing measured, so not stored.
    #[serde(skip, default = "any_hints")]
    pub hint_bytes: u64,
}

fn loopback() -> Link {
    Link::LOOPBACK
}

fn any_hints() -> u64 {
    ANY_HINTS
}

/// No limit of [`Costs::hint_bytes`].
pub const ANY_HINTS: u64 = u64::MAX;

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

    /// The same costs over another link.
    pub fn over(self, link: Link) -> Self {
        Self { link, ..self }
    }
}

impl Default for Costs {
    /// Measured by the calibration on two cores of a Xeon (Cascade Lake, 2.5 GHz, kernel `avx512`); how what comes back and what is wanted share a
    /// client's work, and what a second component takes, are of later measurements on a Zen 5.
    fn default() -> Self {
        let hidden =
            Work { client: [2e5, 2.0, 20.0, 2.5, 5.0, 10.0, 40.0], server: [4e4, 5.5, 0.6, 3.0, 6.5, 15.0, 2.5] };
        let open =
            Work { client: [1e5, 8.0, 30.0, 3.0, 7.0, 13.0, 40.0], server: [2e4, 6.0, 0.6, 4.0, 5.0, 15.0, 2.5] };
        Self { hidden, open, link: Link::LOOPBACK, hint_bytes: ANY_HINTS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_cost_what_they_carry() {
        let wanted = LayerCounts {
            degree: 4096,
            modulus_bits: 68,
            limbs: 2,
            tiles: 5,
            row_tiles: 5,
            strips: 2,
            rows: 10,
            short_rows: 0,
            first_bits: 34,
            wanted: 1024,
            answer: Answer::default(),
            values: 1000,
        };
        let whole = wanted.answered(Answer { whole_rows: true, second_component: false });
        let second = wanted.answered(Answer { whole_rows: false, second_component: true });
        let costs = Costs::default();
        let more = |counts: &LayerCounts| {
            let (a, b) = (costs.predict(counts, true), costs.predict(&wanted, true));
            (a.client_ms - b.client_ms, a.server_ms - b.server_ms)
        };
        // 20 rows and primes of two strips that cost 1.85 of one; by the factors above: 3072 residues more at 6.5 and 5 ns, 4096 at 3 ns less.
        let (client, server) = more(&whole);
        assert!((server - 37.0 * (3072.0 * 6.5 - 4096.0 * 3.0) / 1e6).abs() < 1e-9);
        assert!((client - 37.0 * 3072.0 * 5.0 / 1e6).abs() < 1e-9);
        // Hints come once, whatever the number of strips: 20 rows and primes, the public vector of 5 tiles.
        let (client, server) = more(&second);
        assert!((server - 4096.0 * (5.0 * 2.0 * 15.0 + 6.0 * 20.0 * 2.5) / 1e6).abs() < 1e-9);
        assert!((client - 20.0 * 4096.0 * 40.0 / 1e6).abs() < 1e-9);
        // 68 bits are 8.5 bytes.
        assert_eq!(wanted.bytes_down(), 2 * 10 * 8704);
        assert_eq!(whole.bytes_down(), 2 * 10 * 34816);
        assert_eq!(second.bytes_down(), (2 * 8704 + 34816) * 10);
        assert_eq!(whole.bytes_up(), second.bytes_up());
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
