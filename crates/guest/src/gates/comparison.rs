//! Which bits are dealt and opened to compare a public `u` with a mask `r` that the dealer alone
//! knows.
//!
//! `u` and `r` have `bits` bits. The sign of `u - r` is `MSB(u) ^ MSB(r) ^ [u_low < r_low]`, and
//! the low bits are cut into chunks, from the top down. For a chunk of `c` bits both parties hold
//! xor shares of the thermometer table `[i < r_j]`, `i < 2^c - 1`. Looking it up at the public
//! `u_j` is local, and gives `less_j`; `equal_j` is the xor of two neighbouring entries. Then
//!
//! ```text
//! [u < r] = less_1 ^ P,    P = equal_1 less_2 ^ equal_1 equal_2 less_3 ^ ...
//! ```
//!
//! One exchange opens `v = x ^ rho` for every variable `x` of `P`, each with a mask bit `rho` of
//! its own. `P(v ^ rho)` is the xor over all sets `S` of variables of `v_S D_S(rho)`, where `v_S`
//! is the product of the opened bits and `D_S` the derivative of `P` by `S`. A derivative that is 1
//! is public, one that is a single `rho` is known to both parties in shares, and the others are
//! dealt. `D_{} = P(rho)` is not: it goes into the mask of the bit that the gate opens next.
//!
//! A second point `u - threshold` may be compared with the same `r` from the same tables. Chunks
//! below the threshold's lowest set bit have the same index at both points: they are looked up and
//! opened once, as one variable.

/// A product of variables: bit `i` stands for variable `i`.
pub(crate) type Monomial = u64;

/// A part of the compared bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Its lowest bit.
    pub(crate) lowest: usize,
    /// Its bits.
    pub(crate) bits: usize,
    /// Whether both points have the same index.
    pub(crate) shared: bool,
    /// The variables `less_j`, by point; none in the first chunk.
    pub(crate) less: [Option<usize>; 2],
    /// The variables `equal_j`, by point; none in the last chunk.
    pub(crate) equal: [Option<usize>; 2],
}

/// A product of opened bits, made of a smaller one and one more bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Product {
    /// The smaller product; the first of all is the empty one.
    pub(crate) smaller: usize,
    /// The variable that comes to it.
    pub(crate) variable: usize,
}

/// Who knows a derivative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Factor {
    /// It is 1.
    One,
    /// It is the mask of a variable.
    Mask(usize),
    /// It is dealt: which of the dealt derivatives.
    Dealt(usize),
}

/// A summand of `P` at a point, once the variables are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    /// At which point.
    pub(crate) point: usize,
    /// Which product of opened bits.
    pub(crate) product: usize,
    /// The derivative.
    pub(crate) factor: Factor,
}

/// How values of so many bits are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// Bits of `u` and `r`, the sign among them.
    pub(crate) bits: u32,
    /// What is subtracted from `u` at the second point, if there is one.
    pub(crate) threshold: Option<u32>,
    /// The low bits, from the top down.
    pub(crate) chunks: Vec<Chunk>,
    /// Bits that are opened.
    pub(crate) variables: usize,
    /// Planes of tables.
    pub(crate) tables: usize,
    /// `P` of every point, a sum of monomials.
    pub(crate) sums: Vec<Vec<Monomial>>,
    /// Derivatives that are dealt, sums of monomials.
    pub(crate) dealt: Vec<Vec<Monomial>>,
    /// Products of opened bits.
    pub(crate) products: Vec<Product>,
    /// What is summed at the points.
    pub(crate) terms: Vec<Term>,
}

/// Most bits of a chunk: a table has one entry less than `2^bits`.
pub(crate) const MAX_CHUNK: usize = 9;

impl Comparison {
    /// A comparison of `bits` bits; `chunks` are the sizes of the low bits' parts, from the top
    /// down, and come to `bits - 1`.
    pub(crate) fn new(bits: u32, threshold: Option<u32>, chunks: &[usize]) -> Self {
        assert_eq!(chunks.iter().sum::<usize>() + 1, bits as usize, "chunks do not cover the low bits");
        assert!(chunks.iter().all(|c| (1..=MAX_CHUNK).contains(c)), "a chunk of {chunks:?} is too large");
        let points = 1 + usize::from(threshold.is_some());
        let (chunks, variables) = variables_of(bits, threshold, chunks);
        let sums: Vec<Vec<Monomial>> = (0..points).map(|point| monomials(&chunks, point)).collect();
        let sets = subsets(&sums);
        let (terms, dealt) = derivatives(&sums, &sets);
        let place = |set: Monomial| sets.iter().position(|s| *s == set).unwrap_or(0);
        let product = |&set: &Monomial| Product {
            smaller: place(set & set.wrapping_sub(1)),
            variable: if set == 0 { 0 } else { set.trailing_zeros() as usize },
        };
        let products = sets.iter().map(product).collect();
        let tables = chunks.iter().map(|c| (1 << c.bits) - 1).sum();
        Self { bits, threshold, chunks, variables, tables, sums, dealt, products, terms }
    }

    /// Points at which `u` is compared.
    pub(crate) fn points(&self) -> usize {
        self.sums.len()
    }

    /// Planes that are dealt for 512 gates: tables, then derivatives.
    pub(crate) fn dealt_planes(&self) -> usize {
        self.tables + self.dealt.len()
    }

    /// Planes of mask bits for 512 gates, from both parties: the variables', then one for each bit
    /// that the gate opens next.
    pub(crate) fn own_planes(&self) -> usize {
        self.variables + self.points()
    }
}

/// Parts of `bits` bits with at most `most` each, nearly equal, the larger ones first.
pub(crate) fn even_chunks(bits: usize, most: usize) -> Vec<usize> {
    let parts = bits.div_ceil(most);
    (0..parts).map(|j| bits / parts + usize::from(j < bits % parts)).collect()
}

fn variables_of(bits: u32, threshold: Option<u32>, sizes: &[usize]) -> (Vec<Chunk>, usize) {
    let points = 1 + usize::from(threshold.is_some());
    let (mut lowest, mut variables, mut chunks) = (bits as usize - 1, 0, vec![]);
    for (j, &size) in sizes.iter().enumerate() {
        lowest -= size;
        let shared = threshold.is_some_and(|t| lowest + size <= t.trailing_zeros() as usize);
        let mut chunk = Chunk { lowest, bits: size, shared, less: [None; 2], equal: [None; 2] };
        for point in 0..points {
            let mut variable = |first: Option<usize>| match first {
                Some(first) if point == 1 && shared => Some(first),
                _ => {
                    variables += 1;
                    Some(variables - 1)
                }
            };
            if j + 1 < sizes.len() {
                chunk.equal[point] = variable(chunk.equal[0]);
            }
            if j > 0 {
                chunk.less[point] = variable(chunk.less[0]);
            }
        }
        chunks.push(chunk);
    }
    (chunks, variables)
}

/// `P` at a point.
fn monomials(chunks: &[Chunk], point: usize) -> Vec<Monomial> {
    let mut above = 0;
    let mut out = vec![];
    for pair in chunks.windows(2) {
        above |= pair[0].equal[point].map_or(0, |v| 1 << v);
        out.push(above | pair[1].less[point].map_or(0, |v| 1 << v));
    }
    out
}

/// All sets of variables by which some derivative is not 0, the empty one first, smaller ones
/// before larger ones.
fn subsets(sums: &[Vec<Monomial>]) -> Vec<Monomial> {
    let mut sets = vec![0];
    for &monomial in sums.iter().flatten() {
        let mut set = monomial;
        while set > 0 {
            sets.push(set);
            set = (set - 1) & monomial;
        }
    }
    sets.sort_by_key(|s| (s.count_ones(), *s));
    sets.dedup();
    sets
}

fn derivatives(sums: &[Vec<Monomial>], sets: &[Monomial]) -> (Vec<Term>, Vec<Vec<Monomial>>) {
    let (mut terms, mut dealt): (Vec<Term>, Vec<Vec<Monomial>>) = (vec![], vec![]);
    for (product, &set) in sets.iter().enumerate().skip(1) {
        for (point, sum) in sums.iter().enumerate() {
            let derivative: Vec<Monomial> = sum.iter().filter(|m| *m & set == set).map(|m| m ^ set).collect();
            let factor = match derivative[..] {
                [] => continue,
                [0] => Factor::One,
                [one] if one.is_power_of_two() => Factor::Mask(one.trailing_zeros() as usize),
                _ => Factor::Dealt(dealt.iter().position(|d| *d == derivative).unwrap_or_else(|| {
                    dealt.push(derivative);
                    dealt.len() - 1
                })),
            };
            terms.push(Term { point, product, factor });
        }
    }
    (terms, dealt)
}
