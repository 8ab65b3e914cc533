//! The client's bundle: all that a client needs except for the hints, which it gets from a server
//! and checks.
//!
//! ```text
//! section "network"  the network without its weights (jali_model::Outline)
//! section "operators" operators u32 | (node u32 | choice of the layout 4 x u32 | degree u32 | limbs u8 | bits of each prime u8*
//!                    | primes of open rows u8 | bits of the plaintext modulus u8)*
//! sections "key O"   keys of operator O (jali_mask::key_bytes)
//! section "plan"     where the plan comes from, with what was measured about it (jali_leak::Origin); may be missing
//! ```

use std::io::{Read, Seek, Write};

use jali_bundle::{Bundle, BundleError, BundleWriter, Kind, MAX_SECTION};
use jali_leak::Origin;
use jali_mask::{MaskError, MatrixShape, OperatorId, OperatorKey, Parameters, ParametersLiteral, UnhintedKey};
use jali_model::{Linear, Outline};
use jali_operator::load::MAX_OPERATORS;
use jali_pack::{Layout, LayoutChoice};
use jali_ring::ring::MAX_LIMBS;
use jali_ring::wire::{Reader, Writer, element_len};
use zeroize::Zeroizing;

use crate::ProtocolError;
use crate::client::{ClientModel, ClientOperator};
use crate::message::{decode_hints, hints_len};

const NETWORK: &str = "network";
const OPERATORS: &str = "operators";
const PLAN: &str = "plan";
/// Most bytes of the section about the plan.
const MAX_ORIGIN: u64 = 1 << 20;

fn key_section(operator: usize) -> String {
    format!("key {operator}")
}

impl ClientModel {
    /// Writes the client's bundle. Returns the sink and the content hash.
    ///
    /// # Errors
    /// [`ProtocolError::Bundle`] if the sink fails.
    pub fn write<W: Write>(&self, sink: W) -> Result<(W, [u8; 32]), ProtocolError> {
        let mut out = BundleWriter::new(sink, Kind::Client, self.id)?;
        out.section(NETWORK, &self.outline.to_bytes()?)?;
        let mut w = Writer::new();
        w.u32(self.operators.len() as u32);
        for operator in &self.operators {
            let literal = operator.key.parameters().literal();
            w.u32(operator.node as u32);
            let LayoutChoice { tile_inputs, row_outputs, block_groups, strips } = operator.layout.choice();
            [tile_inputs, row_outputs, block_groups, strips].iter().for_each(|&c| w.u32(c as u32));
            w.u32(literal.degree as u32);
            w.u8(literal.prime_bits.len() as u8);
            literal.prime_bits.iter().for_each(|&bits| w.u8(bits as u8));
            w.u8(literal.open_primes as u8);
            w.u8(literal.plaintext_bits as u8);
        }
        out.section(OPERATORS, &w.finish())?;
        for (o, operator) in self.operators.iter().enumerate() {
            let mut w = Writer::with_capacity(operator.key.encoded_len());
            operator.key.encode(&mut w);
            out.section(&key_section(o), &Zeroizing::new(w.finish()))?;
        }
        if let Some(origin) = &self.origin {
            out.section(PLAN, &origin.to_bytes()?)?;
        }
        Ok(out.finish()?)
    }
}

/// A client's bundle in memory, waiting for hints.
pub struct StoredClient {
    id: [u8; 16],
    hash: [u8; 32],
    outline: Outline,
    operators: Vec<StoredOperator>,
    origin: Option<Origin>,
}

struct StoredOperator {
    node: usize,
    layout: Layout,
    /// The key without hints; `None` once `complete` is there.
    key: Option<UnhintedKey>,
    complete: Option<OperatorKey>,
}

impl std::fmt::Debug for StoredClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoredClient(withheld)")
    }
}

impl StoredClient {
    /// Reads a client's bundle.
    ///
    /// # Errors
    /// [`ProtocolError::Bundle`] for damaged or foreign bytes, with the section's name where it is
    /// known.
    pub fn read(source: impl Read + Seek) -> Result<Self, ProtocolError> {
        let mut bundle = Bundle::open(source, Kind::Client)?;
        let (id, hash) = (bundle.model(), bundle.content_hash());
        let bytes = bundle.expect(NETWORK, MAX_SECTION)?;
        let outline = Outline::from_bytes(&bytes).map_err(|e| section(NETWORK.into(), e))?;
        let bytes = bundle.expect(OPERATORS, MAX_SECTION)?;
        // The sections of keys follow, one for each operator. Their lengths bound what a
        // description may make this side compute and allocate.
        let paid: Vec<u64> = bundle.following().iter().map(|s| s.len).collect();
        let described = read_operators(&bytes, &outline, &paid).map_err(|e| section(OPERATORS.into(), e))?;
        let input_bound = outline.config().activation_bound();
        let mut operators: Vec<StoredOperator> = Vec::with_capacity(described.len());
        for (o, Described { node, layout, literal }) in described.into_iter().enumerate() {
            let name = key_section(o);
            // A key holds two elements for every tile. A ring's tables are made only if so many
            // bytes are there.
            let element = element_len(literal.degree, literal.prime_bits.iter().copied());
            let least = element.saturating_mul(2 * layout.tiles());
            if bundle.peek().is_none_or(|section| section.len < least as u64) {
                return Err(section(name, "it is missing or too short for the layer"));
            }
            // Operators of the same ring share its tables.
            let same = operators.iter().map(|l| l.key.as_ref().map(UnhintedKey::parameters));
            let same = same.flatten().find(|parameters| *parameters.literal() == literal).cloned();
            let parameters: Parameters = match same {
                Some(parameters) => parameters,
                None => literal.try_into().map_err(|e: MaskError| section(OPERATORS.into(), e))?,
            };
            let pattern = layout.wanted();
            let wanted = pattern.expand(parameters.ring().degree()).map_err(|e| section(OPERATORS.into(), e))?;
            let bytes = Zeroizing::new(bundle.expect(&name, MAX_SECTION)?);
            let mut r = Reader::new(&bytes);
            let operator = OperatorId { model: id, operator: o as u32 };
            let shape = MatrixShape { rows: layout.rows(), blocks: layout.blocks(), tiles: layout.row_tiles() };
            let key = UnhintedKey::decode(&mut r, operator, parameters, wanted, input_bound, shape)
                .and_then(|key| Ok(r.clone().finish().map(|()| key)?))
                .map_err(|e| section(name, e))?;
            operators.push(StoredOperator { node, layout, key: Some(key), complete: None });
        }
        let mut origin = None;
        if bundle.peek().is_some_and(|s| s.name == PLAN) {
            let bytes = bundle.expect(PLAN, MAX_ORIGIN)?;
            origin = Some(Origin::from_bytes(&bytes).map_err(|e| section(PLAN.into(), e))?);
        }
        if let Some(extra) = bundle.peek() {
            return Err(section(extra.name.clone(), "no section was expected here"));
        }
        Ok(Self { id, hash, outline, operators, origin })
    }

    /// Returns the public id of the sealed model, 16 bytes.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Returns the content hash of the bundle, 32 bytes.
    pub fn content_hash(&self) -> [u8; 32] {
        self.hash
    }

    /// Returns the network without its weights.
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// Returns where the plan comes from, if the network was sealed with a plan from a file.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// Returns the number of operators: one for every linear layer.
    pub fn operators(&self) -> usize {
        self.operators.len()
    }

    /// Returns node, layout, parameters and numbers of hidden and open rows of every operator that
    /// still waits for hints.
    pub fn summaries(&self) -> Vec<KeySummary> {
        let summary = |l: &StoredOperator| {
            let key = l.key.as_ref()?;
            let node = &self.outline.graph().nodes()[l.node];
            let linear = node.op.linear()?;
            let fan_in = linear.fan_in();
            let weights = |row: usize| l.layout.outputs_of_row(row).len() * fan_in;
            let hidden = key.hidden_rows();
            let sum =
                |want: bool| hidden.iter().enumerate().filter(|(_, h)| **h == want).map(|(r, _)| weights(r)).sum();
            Some(KeySummary {
                name: node.name.clone(),
                kind: linear.kind(),
                layout: l.layout.describe(),
                literal: key.parameters().literal().clone(),
                tiles: l.layout.row_tiles(),
                blocks: l.layout.blocks(),
                strips: l.layout.strips(),
                rows: l.layout.rows(),
                hidden_rows: hidden.iter().filter(|h| **h).count(),
                weights_hidden: sum(true),
                weights_open: sum(false),
            })
        };
        self.operators.iter().filter_map(summary).collect()
    }

    /// Returns the most bytes of a message with the hints of an operator, or 0 if it waits for
    /// none.
    pub fn hints_len(&self, operator: usize) -> usize {
        let key = self.operators.get(operator).and_then(|stored| stored.key.as_ref());
        key.map_or(0, |key| hints_len(key.parameters().ring(), key.row_limbs()))
    }

    /// Returns whether an operator still waits for hints.
    pub fn needs_hints(&self, operator: usize) -> bool {
        self.operators.get(operator).is_some_and(|stored| stored.key.is_some())
    }

    /// Takes the hints of one operator as a server sent them, or as they were kept from an earlier
    /// time, if they pass the check.
    ///
    /// # Errors
    /// [`ProtocolError::Hints`] if they do not; other bytes may be tried then.
    /// [`ProtocolError::NoHintsExpected`] if there is no such operator or it has its hints.
    pub fn accept_hints(&mut self, operator: usize, message: &[u8]) -> Result<(), ProtocolError> {
        let stored = self.operators.get_mut(operator);
        let Some((stored, key)) = stored.and_then(|stored| stored.key.take().map(|key| (stored, key))) else {
            return Err(ProtocolError::NoHintsExpected { operator });
        };
        let hints = decode_hints(message, operator as u32, key.parameters().ring(), key.row_limbs());
        match key.accept(hints.unwrap_or_default()) {
            Ok(key) => {
                stored.complete = Some(key);
                Ok(())
            }
            Err(key) => {
                stored.key = Some(*key);
                Err(ProtocolError::Hints { layer: self.outline.graph().nodes()[stored.node].name.clone() })
            }
        }
    }

    /// Returns the client model, once all hints are there.
    ///
    /// # Errors
    /// [`ProtocolError::HintsMissing`] if an operator still waits for hints.
    pub fn finish(self) -> Result<ClientModel, ProtocolError> {
        let missing = self.operators.iter().filter(|stored| stored.complete.is_none()).count();
        let complete = |stored: StoredOperator| {
            let key = stored.complete.ok_or(ProtocolError::HintsMissing { missing })?;
            Ok(ClientOperator { node: stored.node, layout: stored.layout, key })
        };
        let operators = self.operators.into_iter().map(complete).collect::<Result<_, ProtocolError>>()?;
        Ok(ClientModel { id: self.id, outline: self.outline, operators, origin: self.origin })
    }
}

/// A summary of what a client's bundle says about one operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySummary {
    /// Node name.
    pub name: String,
    /// `conv3x3`, `fc`.
    pub kind: String,
    /// Words for what a tile and a row hold.
    pub layout: String,
    /// Parameters of the ring.
    pub literal: ParametersLiteral,
    /// Ring elements of a row.
    pub tiles: usize,
    /// Blocks of the matrix, each with tiles of its own.
    pub blocks: usize,
    /// Inputs of the matrix that one image becomes.
    pub strips: usize,
    /// Rows of the matrix.
    pub rows: usize,
    /// How many are hidden.
    pub hidden_rows: usize,
    /// Weights in hidden rows.
    pub weights_hidden: usize,
    /// Weights in open rows.
    pub weights_open: usize,
}

fn section(name: String, why: impl std::fmt::Display) -> ProtocolError {
    BundleError::Section { section: name, why: why.to_string() }.into()
}

/// The bundle's description of an operator, which comes before its key.
struct Described {
    node: usize,
    layout: Layout,
    literal: ParametersLiteral,
}

fn read_operators(bytes: &[u8], outline: &Outline, paid: &[u64]) -> Result<Vec<Described>, ProtocolError> {
    let mut r = Reader::new(bytes);
    let count = r.count(MAX_OPERATORS, "operators")?;
    let linear: Vec<_> = outline.graph().linear_nodes().collect();
    if linear.len() != count {
        return Err(r.malformed("an operator for every linear layer").into());
    }
    let described = linear.into_iter().enumerate();
    let operators = described
        .map(|(o, (node, linear))| read_operator(&mut r, outline, (node, linear), paid.get(o).copied().unwrap_or(0)));
    let operators = operators.collect::<Result<_, _>>()?;
    r.finish()?;
    Ok(operators)
}

/// Returns the taps along the longer axis of a layer's kernel, or 0 if it has none.
fn layout_taps(linear: Linear<'_>) -> usize {
    match linear {
        Linear::Conv(c) => c.kernel[0].max(c.kernel[1]),
        Linear::Gemm(_) => 0,
    }
}

fn read_operator(
    r: &mut Reader<'_>,
    outline: &Outline,
    (node, linear): (usize, Linear<'_>),
    paid: u64,
) -> Result<Described, ProtocolError> {
    if r.u32()? as usize != node {
        return Err(r.malformed("operators in the order of the network's linear layers").into());
    }
    let mut next = || -> Result<usize, ProtocolError> { Ok(r.u32()? as usize) };
    let choice = LayoutChoice { tile_inputs: next()?, row_outputs: next()?, block_groups: next()?, strips: next()? };
    let degree = next()?;
    let limbs = usize::from(r.u8()?);
    if !(1..=MAX_LIMBS).contains(&limbs) {
        return Err(r.malformed("number of primes").into());
    }
    let prime_bits = r.raw(limbs)?.iter().map(|&b| u32::from(b)).collect();
    let (open_primes, plaintext_bits) = (usize::from(r.u8()?), u32::from(r.u8()?));
    let literal = ParametersLiteral { degree, prime_bits, plaintext_bits, open_primes };
    if plaintext_bits < outline.config().plaintext_bits(linear.fan_in()) {
        return Err(r.malformed("a plaintext modulus with room for every sum").into());
    }
    // A layout keeps a few numbers for every tap along an axis. A key has at least four bytes for
    // each of them that meets pixels.
    if layout_taps(linear) as u64 > paid / 4 {
        return Err(r.malformed("a key that is long enough for the layer").into());
    }
    let input = outline.graph().shape(outline.graph().nodes()[node].inputs[0]);
    let layout = Layout::chosen(linear, input, degree, choice)?;
    Ok(Described { node, layout, literal })
}
