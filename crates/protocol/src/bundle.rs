//! The client's bundle: all that a client needs but the hints, which it gets from a server and checks.
//!
//! ```text
//! section "network"  the network without its weights (jali_model::Outline)
//! section "layers"   operators u32 | (node u32 | columns | choice of the layout 4 x u32 | degree u32 | limbs u8 | bits of each prime u8*
//!                    | primes of open rows u8 | bits of the plaintext modulus u8 | kind of answer u8)*
//!          columns = 0                                     all of the node's
//!                  | 1 | columns u32 | their indices u32*
//! sections "key L"   keys of operator L (jali_mask::store)
//! section "plan"     where the plan comes from, with what was measured about it (jali_leak::Origin); may be missing
//! ```

use std::io::{Read, Seek, Write};

use jali_leak::Origin;
use jali_mask::{AnswerKind, LayerId, LayerKey, MaskError, Parameters, ParametersLiteral, UnhintedKey, Wanted};
use jali_model::{Linear, Outline};
use jali_operator::{Bundle, BundleWriter, Kind, OperatorError};
use jali_pack::{Columns, Layout};
use jali_ring::wire::{Reader, Writer, element_len};
use zeroize::Zeroizing;

use crate::ProtocolError;
use crate::client::{ClientLayer, ClientModel};
use crate::message::{decode_hints, hints_len};

const NETWORK: &str = "network";
const LAYERS: &str = "layers";
const PLAN: &str = "plan";
/// Most bytes of what is said about a plan.
const MAX_ORIGIN: u64 = 1 << 20;
const ALL_COLUMNS: u8 = 0;
const SOME_COLUMNS: u8 = 1;
/// Most operators of one network.
const MAX_LAYERS: usize = 4096;
/// Most primes of one ring.
const MAX_LIMBS: usize = 32;
/// Most bytes of a section.
const MAX_SECTION: u64 = 1 << 30;

fn key_section(layer: usize) -> String {
    format!("key {layer}")
}

impl ClientModel {
    /// Writes the client's bundle. Returns the sink and the content hash.
    ///
    /// # Errors
    /// [`ProtocolError::Operator`] if the sink fails.
    pub fn write<W: Write>(&self, sink: W) -> Result<(W, [u8; 32]), ProtocolError> {
        let mut out = BundleWriter::new(sink, Kind::Client, self.id)?;
        out.section(NETWORK, &self.outline.to_bytes()?)?;
        let mut w = Writer::new();
        w.u32(self.layers.len() as u32);
        for layer in &self.layers {
            let literal = layer.key.parameters().literal();
            w.u32(layer.node as u32);
            match &layer.columns {
                Columns::All => w.u8(ALL_COLUMNS),
                Columns::Some { chosen, .. } => {
                    w.u8(SOME_COLUMNS);
                    w.u32(chosen.len() as u32);
                    chosen.iter().for_each(|&c| w.u32(c));
                }
            }
            layer.layout.choice().iter().for_each(|&c| w.u32(c as u32));
            w.u32(literal.degree as u32);
            w.u8(literal.prime_bits.len() as u8);
            literal.prime_bits.iter().for_each(|&bits| w.u8(bits as u8));
            w.u8(literal.open_primes as u8);
            w.u8(literal.plaintext_bits as u8);
            w.u8(layer.key.form().kind().byte());
        }
        out.section(LAYERS, &w.finish())?;
        for (l, layer) in self.layers.iter().enumerate() {
            let mut w = Writer::with_capacity(layer.key.encoded_len());
            layer.key.encode(&mut w);
            out.section(&key_section(l), &Zeroizing::new(w.finish()))?;
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
    layers: Vec<StoredLayer>,
    origin: Option<Origin>,
}

struct StoredLayer {
    node: usize,
    columns: Columns,
    layout: Layout,
    /// `None` once there is a complete one.
    key: Option<UnhintedKey>,
    complete: Option<LayerKey>,
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
    /// [`ProtocolError::Operator`] for damaged or foreign bytes, with the section's name.
    pub fn read(source: impl Read + Seek) -> Result<Self, ProtocolError> {
        let mut bundle = Bundle::open(source, Kind::Client)?;
        let (id, hash) = (bundle.model(), bundle.content_hash());
        let bytes = bundle.expect(NETWORK, MAX_SECTION)?;
        let outline = Outline::from_bytes(&bytes).map_err(|e| section(NETWORK.into(), e))?;
        let bytes = bundle.expect(LAYERS, MAX_SECTION)?;
        // Sections of keys follow, one for each operator: what they hold pays for what is made of a description.
        let paid: Vec<u64> = bundle.following().iter().map(|s| s.len).collect();
        let described = read_layers(&bytes, &outline, &paid).map_err(|e| section(LAYERS.into(), e))?;
        let input_bound = outline.config().activation_bound();
        let mut layers = Vec::with_capacity(described.len());
        for (l, Described { node, columns, layout, literal, kind }) in described.into_iter().enumerate() {
            let name = key_section(l);
            // Its key holds two elements for every tile: a ring's tables are not made before so many bytes are there.
            let element = element_len(literal.degree, literal.prime_bits.iter().copied());
            let least = element.saturating_mul(2 * layout.tiles());
            if bundle.peek().is_none_or(|section| section.len < least as u64) {
                return Err(section(name, "it is missing or too short for the layer"));
            }
            // Operators of the same ring share its tables.
            let same = layers.iter().map(|l: &StoredLayer| l.key.as_ref().map(UnhintedKey::parameters));
            let same = same.flatten().find(|parameters| *parameters.literal() == literal).cloned();
            let parameters: Parameters = match same {
                Some(parameters) => parameters,
                None => literal.try_into().map_err(|e: MaskError| section(LAYERS.into(), e))?,
            };
            let pattern = layout.wanted();
            let wanted = Wanted::new(parameters.ring().degree(), pattern.start, pattern.dims);
            let form = (wanted.map_err(|e| section(LAYERS.into(), e))?, kind);
            let bytes = Zeroizing::new(bundle.expect(&name, MAX_SECTION)?);
            let mut r = Reader::new(&bytes);
            let layer = LayerId { model: id, layer: l as u32 };
            let shape = [layout.rows(), layout.row_tiles(), layout.blocks()];
            let key = UnhintedKey::decode(&mut r, layer, parameters, form, input_bound, shape)
                .and_then(|key| Ok(r.clone().finish().map(|()| key)?))
                .map_err(|e| section(name, e))?;
            layers.push(StoredLayer { node, columns, layout, key: Some(key), complete: None });
        }
        let mut origin = None;
        if bundle.peek().is_some_and(|s| s.name == PLAN) {
            let bytes = bundle.expect(PLAN, MAX_ORIGIN)?;
            origin = Some(Origin::from_bytes(&bytes).map_err(|e| section(PLAN.into(), e))?);
        }
        if let Some(extra) = bundle.peek() {
            return Err(section(extra.name.clone(), "no section was expected here"));
        }
        Ok(Self { id, hash, outline, layers, origin })
    }

    /// Public id of the sealed model.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Content hash of the bundle.
    pub fn content_hash(&self) -> [u8; 32] {
        self.hash
    }

    /// The network without its weights.
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// Where the plan comes from, if it was sealed with one from a file.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// Number of operators: linear layers, or parts of them.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Node, layout, parameters and rows (whether each is hidden) of every layer that still waits for hints.
    pub fn summaries(&self) -> Vec<LayerSummary> {
        let summary = |l: &StoredLayer| {
            let key = l.key.as_ref()?;
            let node = &self.outline.graph().nodes()[l.node];
            let linear = node.op.linear()?;
            let fan_in = l.columns.part(linear).ok()?.linear().fan_in();
            let weights = |row: usize| l.layout.outputs_of_row(row).len() * fan_in;
            let hidden = key.hidden_rows();
            let sum =
                |want: bool| hidden.iter().enumerate().filter(|(_, h)| **h == want).map(|(r, _)| weights(r)).sum();
            Some(LayerSummary {
                name: node.name.clone(),
                kind: linear.kind(),
                layout: l.columns.describe() + &l.layout.describe(),
                literal: key.parameters().literal().clone(),
                tiles: l.layout.row_tiles(),
                blocks: l.layout.blocks(),
                strips: l.layout.strips(),
                answer: key.kind(),
                rows: l.layout.rows(),
                hidden_rows: hidden.iter().filter(|h| **h).count(),
                weights_hidden: sum(true),
                weights_open: sum(false),
            })
        };
        self.layers.iter().filter_map(summary).collect()
    }

    /// Bytes of a message with the hints of an operator.
    pub fn hints_len(&self, layer: usize) -> usize {
        let key = self.layers.get(layer).and_then(|stored| stored.key.as_ref());
        key.map_or(0, |key| hints_len(key.parameters().ring(), key.row_limbs()))
    }

    /// Whether an operator still waits for hints: not if they come with every answer.
    pub fn needs_hints(&self, layer: usize) -> bool {
        let key = self.layers.get(layer).and_then(|stored| stored.key.as_ref());
        key.is_some_and(|key| !key.kind().second_component)
    }

    /// Takes the hints of one operator as a server sent them (or as they were kept from an earlier time), if they pass the check.
    ///
    /// # Errors
    /// [`ProtocolError::Hints`]; other bytes may be tried.
    pub fn accept_hints(&mut self, layer: usize, message: &[u8]) -> Result<(), ProtocolError> {
        let name = |l: &StoredLayer| self.outline.graph().nodes()[l.node].name.clone();
        if !self.needs_hints(layer) {
            return Err(ProtocolError::Order("hints of this layer"));
        }
        let Some(stored) = self.layers.get_mut(layer) else { return Err(ProtocolError::Order("hints of this layer")) };
        let Some(key) = stored.key.take() else { return Err(ProtocolError::Order("hints of this layer")) };
        let hints = decode_hints(message, layer as u32, key.parameters().ring(), key.row_limbs()).unwrap_or_default();
        match key.accept(hints) {
            Ok(key) => {
                stored.complete = Some(key);
                Ok(())
            }
            Err(key) => {
                stored.key = Some(*key);
                Err(ProtocolError::Hints { layer: name(stored) })
            }
        }
    }

    /// The client, once all hints are there.
    ///
    /// # Errors
    /// [`ProtocolError::Order`] if some are missing.
    pub fn finish(self) -> Result<ClientModel, ProtocolError> {
        let complete = |stored: StoredLayer| {
            let StoredLayer { node, columns, layout, key, complete } = stored;
            let key = complete.or_else(|| key?.without_hints().ok());
            let key = key.ok_or(ProtocolError::Order("an inference: hints are missing"))?;
            Ok(ClientLayer { node, columns, layout, key })
        };
        let layers = self.layers.into_iter().map(complete).collect::<Result<_, ProtocolError>>()?;
        Ok(ClientModel { id: self.id, outline: self.outline, layers, origin: self.origin })
    }
}

/// What a client's bundle says about one operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSummary {
    /// Node name.
    pub name: String,
    /// `conv3x3`, `fc`.
    pub kind: String,
    /// What a tile and a row hold.
    pub layout: String,
    /// Ring.
    pub literal: ParametersLiteral,
    /// Ring elements of a row.
    pub tiles: usize,
    /// Blocks of the matrix, each with tiles of its own.
    pub blocks: usize,
    /// Inputs of the matrix that one image becomes.
    pub strips: usize,
    /// What it asks the server for.
    pub answer: AnswerKind,
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
    OperatorError::Section { section: name, why: why.to_string() }.into()
}

/// What the bundle says about an operator before its key.
struct Described {
    node: usize,
    columns: Columns,
    layout: Layout,
    literal: ParametersLiteral,
    kind: AnswerKind,
}

fn read_layers(bytes: &[u8], outline: &Outline, paid: &[u64]) -> Result<Vec<Described>, ProtocolError> {
    let mut r = Reader::new(bytes);
    let count = r.count(MAX_LAYERS, "layers")?;
    let mut layers: Vec<Described> = vec![];
    for (node, linear) in outline.graph().linear_nodes() {
        // The operators of a node are either one that takes all of its columns or several that share them.
        let mut taken = std::collections::BTreeSet::new();
        loop {
            if layers.len() == count {
                return Err(r.malformed("a layer for every linear node").into());
            }
            let layer = read_layer(&mut r, outline, (node, linear), paid.get(layers.len()).copied().unwrap_or(0))?;
            let whole = match &layer.columns {
                Columns::All => true,
                Columns::Some { of, chosen } => {
                    // Within the layer's columns: the layout was made for them.
                    if !chosen.iter().all(|&c| taken.insert(c)) {
                        return Err(r.malformed("columns that no other part takes").into());
                    }
                    taken.len() == *of
                }
            };
            let first = layers.last().is_none_or(|last: &Described| last.node != node);
            if layer.columns == Columns::All && !first {
                return Err(r.malformed("columns that no other part takes").into());
            }
            layers.push(layer);
            if whole {
                break;
            }
        }
    }
    if layers.len() != count {
        return Err(r.malformed("a layer for every linear node").into());
    }
    r.finish()?;
    Ok(layers)
}

/// Taps along the longer axis of a layer's window.
fn layout_taps(linear: Linear<'_>) -> usize {
    match linear {
        Linear::Conv(c) => c.kernel[0].max(c.kernel[1]),
        Linear::Gemm(_) => 0,
    }
}

fn read_layer(
    r: &mut Reader<'_>,
    outline: &Outline,
    (node, linear): (usize, Linear<'_>),
    paid: u64,
) -> Result<Described, ProtocolError> {
    if r.u32()? as usize != node {
        return Err(r.malformed("layers in the order of the network").into());
    }
    let columns = match r.u8()? {
        ALL_COLUMNS => Columns::All,
        SOME_COLUMNS => {
            let of = linear.columns();
            let count = r.count(of.min(r.remaining() / 4), "columns of a layer")?;
            let chosen = (0..count).map(|_| r.u32()).collect::<Result<_, _>>()?;
            Columns::Some { of, chosen }
        }
        _ => return Err(r.malformed("kind of columns").into()),
    };
    let choice = [r.u32()? as usize, r.u32()? as usize, r.u32()? as usize, r.u32()? as usize];
    let degree = r.u32()? as usize;
    let limbs = usize::from(r.u8()?);
    if !(1..=MAX_LIMBS).contains(&limbs) {
        return Err(r.malformed("number of primes").into());
    }
    let prime_bits = r.raw(limbs)?.iter().map(|&b| u32::from(b)).collect();
    let (open_primes, plaintext_bits) = (usize::from(r.u8()?), u32::from(r.u8()?));
    let Some(kind) = AnswerKind::from_byte(r.u8()?) else { return Err(r.malformed("kind of answer").into()) };
    let literal = ParametersLiteral { degree, prime_bits, plaintext_bits, open_primes };
    let part = columns.part(linear)?;
    if plaintext_bits < outline.config().plaintext_bits(part.linear().fan_in()) {
        return Err(r.malformed("a plaintext modulus with room for every sum").into());
    }
    let input = columns.shape(outline.graph().shape(outline.graph().nodes()[node].inputs[0]));
    // A layout keeps a few numbers for every tap along an axis. A key has at least four bytes for each of them that meets pixels.
    if layout_taps(part.linear()) as u64 > paid / 4 {
        return Err(r.malformed("a key that is long enough for the layer").into());
    }
    let layout = Layout::chosen(part.linear(), &input, degree, choice)?;
    Ok(Described { node, columns, layout, literal, kind })
}
