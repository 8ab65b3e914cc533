//! Costs of a layer: work on either side, in proportion to a few counts, and the link between them.
//!
//! The factors are measured on a machine by running a network of known shapes through the whole
//! pipeline (the facade's calibration); here they are only numbers. They decide about speed and
//! traffic, never about security: parameters follow from shapes whatever the costs are.

use serde::{Deserialize, Serialize};

/// Counts that the cost of a layer follows from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OperatorCounts {
    /// Ring degree `N`.
    pub degree: usize,
    /// Sum of the primes' sizes in bits.
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

/// Cost of each further input of a matrix, as a fraction of the first one's: the matrix is read
/// only once for all. Open layers of vgg3 and of MiniONN's network in two strips took 0.75 to 1.0
/// times as long as two inputs of equal cost would (`jali explain`).
const FURTHER: f64 = 0.85;

/// Number of terms of either side's work.
pub const TERMS: usize = 5;

/// The client's work for one layer, term by term: as counts of [`OperatorCounts::client`], or as
/// nanoseconds per unit of each.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClientTerms {
    /// The layer itself.
    pub layer: f64,
    /// Numbers that go into and come out of the layer.
    pub values: f64,
    /// Residues of the tiles that are masked.
    pub tiles: f64,
    /// Residues of the rows that are unmasked.
    pub rows: f64,
    /// Residues of the wanted coefficients that come back.
    pub wanted: f64,
}

/// The server's work for one layer, term by term: as counts of [`OperatorCounts::server`], or as
/// nanoseconds per unit of each.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ServerTerms {
    /// The layer itself.
    pub layer: f64,
    /// Residues of the tiles that come.
    pub tiles: f64,
    /// Products of residues.
    pub products: f64,
    /// Residues of the rows that are transformed back.
    pub rows: f64,
    /// Residues of the wanted coefficients that go back.
    pub wanted: f64,
}

/// Terms as a list, for fitting and for sums of products.
pub trait Terms: Copy {
    /// Returns the terms in the order of the fields.
    fn to_list(self) -> [f64; TERMS];

    /// Makes terms from a list in the order of the fields.
    fn from_list(list: [f64; TERMS]) -> Self;

    /// Returns the milliseconds that `units` take, with these terms as nanoseconds per unit.
    fn milliseconds(self, units: Self) -> f64 {
        self.to_list().iter().zip(units.to_list()).map(|(ns, count)| ns * count).sum::<f64>() / 1e6
    }
}

impl Terms for ClientTerms {
    fn to_list(self) -> [f64; TERMS] {
        [self.layer, self.values, self.tiles, self.rows, self.wanted]
    }

    fn from_list([layer, values, tiles, rows, wanted]: [f64; TERMS]) -> Self {
        Self { layer, values, tiles, rows, wanted }
    }
}

impl Terms for ServerTerms {
    fn to_list(self) -> [f64; TERMS] {
        [self.layer, self.tiles, self.products, self.rows, self.wanted]
    }

    fn from_list([layer, tiles, products, rows, wanted]: [f64; TERMS]) -> Self {
        Self { layer, tiles, products, rows, wanted }
    }
}

impl OperatorCounts {
    /// Counts the client's units of each term for one image.
    pub fn client(&self) -> ClientTerms {
        let (row_limbs, inputs) = (self.row_limbs() as f64, self.inputs());
        ClientTerms {
            layer: 1.0,
            values: self.values as f64,
            tiles: inputs * (self.tiles * self.degree * self.limbs) as f64,
            rows: inputs * row_limbs * self.degree as f64,
            wanted: inputs * row_limbs * self.wanted as f64,
        }
    }

    /// Counts the server's units of each term for one image.
    pub fn server(&self) -> ServerTerms {
        let (row_limbs, inputs) = (self.row_limbs() as f64, self.inputs());
        ServerTerms {
            layer: 1.0,
            tiles: inputs * (self.tiles * self.degree * self.limbs) as f64,
            products: inputs * row_limbs * (self.row_tiles * self.degree) as f64,
            rows: inputs * row_limbs * self.degree as f64,
            wanted: inputs * row_limbs * self.wanted as f64,
        }
    }

    /// Returns the inputs of the matrix for one image, in units of what the first of them costs.
    fn inputs(&self) -> f64 {
        1.0 + FURTHER * (self.strips as f64 - 1.0)
    }

    /// Returns the limbs of all rows together.
    fn row_limbs(&self) -> usize {
        (self.rows - self.short_rows) * self.limbs + self.short_rows
    }

    /// Returns the bytes of a request for one image, without its header.
    pub fn bytes_up(&self) -> usize {
        self.strips * self.tiles * self.degree * self.modulus_bits as usize / 8
    }

    /// Returns the bytes of an answer for one image, without its header.
    pub fn bytes_down(&self) -> usize {
        let row = |bits: u32| (self.wanted * bits as usize).div_ceil(8);
        let rows = (self.rows - self.short_rows) * row(self.modulus_bits) + self.short_rows * row(self.first_bits);
        self.strips * rows
    }

    /// Returns the bytes both ways for one image.
    pub fn bytes(&self) -> usize {
        self.bytes_up() + self.bytes_down()
    }

    /// Returns the bytes of `rows` hidden rows as they are sealed.
    pub fn hidden_bytes(&self, rows: usize) -> usize {
        self.row_tiles * rows * self.degree * self.modulus_bits as usize / 8
    }

    /// Returns the products of ring elements modulo one prime that the server computes for an
    /// image.
    pub fn products(&self) -> usize {
        self.strips * self.row_tiles * self.row_limbs()
    }
}

/// Nanoseconds of wall time per unit of work, with all threads at work.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// The client's.
    pub client: ClientTerms,
    /// The server's.
    pub server: ServerTerms,
}

/// The link between client and server.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Round-trip time in milliseconds.
    pub rtt_ms: f64,
    /// Capacity in either direction, in megabits per second; 0 stands for no limit.
    pub mbit_per_s: f64,
}

impl Link {
    /// Both sides on one machine.
    pub const LOOPBACK: Self = Self { rtt_ms: 0.0, mbit_per_s: 0.0 };
    /// A local network.
    pub const LAN: Self = Self { rtt_ms: 0.3, mbit_per_s: 1000.0 };
    /// A wide-area network.
    pub const WAN: Self = Self { rtt_ms: 40.0, mbit_per_s: 100.0 };

    /// Returns the milliseconds that one request and its answer of `bytes` bytes together take.
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

/// All costs that rings and layouts are chosen by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Costs {
    /// Work per unit in layers with hidden rows.
    pub hidden: Work,
    /// Work per unit in layers without hidden rows.
    pub open: Work,
    /// The link: not measured, so not stored.
    #[serde(skip, default = "loopback")]
    pub link: Link,
}

fn loopback() -> Link {
    Link::LOOPBACK
}

/// Milliseconds that a layer is expected to take for one image.
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
    /// Returns all milliseconds together.
    pub fn total_ms(&self) -> f64 {
        self.client_ms + self.server_ms + self.link_ms
    }
}

impl Costs {
    /// Predicts what a layer takes for one image; `hidden` says whether it has hidden rows.
    pub fn predict(&self, counts: &OperatorCounts, hidden: bool) -> Prediction {
        let work = if hidden { &self.hidden } else { &self.open };
        Prediction {
            client_ms: work.client.milliseconds(counts.client()),
            server_ms: work.server.milliseconds(counts.server()),
            link_ms: self.link.ms(counts.bytes()),
        }
    }

    /// Returns these costs with another link.
    pub fn over(self, link: Link) -> Self {
        Self { link, ..self }
    }
}

impl Default for Costs {
    /// Returns figures of the size that a calibration finds on two cores of a server's processor
    /// with AVX-512.
    fn default() -> Self {
        let hidden = Work {
            client: ClientTerms { layer: 2e5, values: 2.0, tiles: 20.0, rows: 2.5, wanted: 15.0 },
            server: ServerTerms { layer: 4e4, tiles: 5.5, products: 0.6, rows: 3.0, wanted: 6.5 },
        };
        let open = Work {
            client: ClientTerms { layer: 1e5, values: 8.0, tiles: 30.0, rows: 3.0, wanted: 20.0 },
            server: ServerTerms { layer: 2e4, tiles: 6.0, products: 0.6, rows: 4.0, wanted: 5.0 },
        };
        Self { hidden, open, link: Link::LOOPBACK }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_cost_what_they_count() {
        let counts = OperatorCounts {
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
            values: 1000,
        };
        let predicted = Costs::default().predict(&counts, true);
        // 20 rows and primes, 10 tiles and primes, of two strips that cost 1.85 of one; by the
        // figures above.
        let client = 2e5 + 1000.0 * 2.0 + 1.85 * (40960.0 * 20.0 + 81920.0 * 2.5 + 20480.0 * 15.0);
        let server = 4e4 + 1.85 * (40960.0 * 5.5 + 5.0 * 81920.0 * 0.6 + 81920.0 * 3.0 + 20480.0 * 6.5);
        assert!((predicted.client_ms - client / 1e6).abs() < 1e-9, "{predicted:?}");
        assert!((predicted.server_ms - server / 1e6).abs() < 1e-9, "{predicted:?}");
        // 68 bits are 8.5 bytes.
        assert_eq!(counts.bytes_down(), 2 * 10 * 8704);
        assert_eq!(counts.bytes_up(), 2 * 5 * 34816);
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
