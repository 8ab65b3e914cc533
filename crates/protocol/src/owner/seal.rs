//! Seals a network for its owner: bytes for the server, keys for the client.

use std::io::Write;

use jali_leak::Plan;
use jali_mask::noise::{MAX_FAILURE_LOG2, sum_log2};
use jali_mask::{
    KeepHints, MatrixShape, OperatorId, OperatorKey, OperatorSetting, PlainMatrix, SealEntropy, SealedHead, seal_matrix,
};
use jali_model::QuantModel;
use jali_operator::ModelWriter;
use jali_pack::Costs;
use jali_ring::Wanted;

use super::build::PlannedOperator;
use super::report::OperatorReport;
use crate::ProtocolError;
use crate::client::{ClientModel, ClientOperator};

/// A network and what decides how it is sealed.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// The quantised network.
    pub model: &'a QuantModel,
    /// The plan: a row is opened only if it allows every weight in the row.
    pub plan: &'a Plan,
    /// The costs: they decide about rings and layouts, never about what is hidden.
    pub costs: &'a Costs,
}

/// A sealed network in memory: what each side gets.
pub struct Sealed {
    /// The server's bundle, which anybody may see.
    pub server: Vec<u8>,
    /// The client's part, which is secret.
    pub client: ClientModel,
    /// What sealing did, operator by operator.
    pub report: Vec<OperatorReport>,
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealed(withheld)")
    }
}

/// The client's part of a sealed network, to be stored. It has no hints: whoever reads it gets them
/// from the server.
pub struct ClosedClient(ClientModel);

impl std::fmt::Debug for ClosedClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClosedClient(withheld)")
    }
}

impl ClosedClient {
    /// Returns the public id of the sealed model, 16 bytes.
    pub fn id(&self) -> [u8; 16] {
        self.0.id
    }

    /// Sets where the plan comes from that the network was sealed with, which goes into the bundle.
    pub fn set_origin(&mut self, origin: jali_leak::Origin) {
        self.0.set_origin(origin);
    }

    /// Writes the client's bundle. Returns the sink and the content hash.
    ///
    /// # Errors
    /// [`ProtocolError::Bundle`] if the sink fails.
    pub fn write<W: Write>(&self, sink: W) -> Result<(W, [u8; 32]), ProtocolError> {
        self.0.write(sink)
    }
}

/// The results of sealing into a sink.
#[derive(Debug)]
pub struct SealedTo<W, C> {
    /// The sink, which holds the server's bundle.
    pub sink: W,
    /// Content hash of the server's bundle.
    pub server_hash: [u8; 32],
    /// The client's part.
    pub client: C,
    /// What sealing did, operator by operator.
    pub report: Vec<OperatorReport>,
}

impl Owner<'_> {
    /// Seals the network into memory; `progress` is called with the number of layers that are done.
    ///
    /// # Errors
    /// [`ProtocolError`] as for [`Owner::seal_to`].
    pub fn seal(&self, entropy: &SealEntropy, progress: impl FnMut(usize)) -> Result<Sealed, ProtocolError> {
        let SealedTo { sink: server, client, report, .. } = self.seal_into(entropy, vec![], progress)?;
        Ok(Sealed { server, client, report })
    }

    /// Seals the network and writes the server's bundle to a sink as it is made. The client has its
    /// hints and can be used at once. `progress` is called with the number of layers that are done.
    ///
    /// # Errors
    /// [`ProtocolError`] as for [`Owner::seal_to`].
    pub fn seal_into<W: Write>(
        &self,
        entropy: &SealEntropy,
        sink: W,
        progress: impl FnMut(usize),
    ) -> Result<SealedTo<W, ClientModel>, ProtocolError> {
        self.run(KeepHints::Yes, entropy, sink, progress)
    }

    /// Seals the network and writes the server's bundle to a sink as it is made. The client has no
    /// hints and is to be stored, so only a few rows of an operator are in memory at a time.
    /// `progress` is called with the number of layers that are done.
    ///
    /// # Errors
    /// [`ProtocolError::Leak`] for a plan of another network, [`ProtocolError::Layer`] if a layer
    /// cannot be lowered, [`ProtocolError::Noise`] if the exact failure bound exceeds 2^-64 per
    /// inference (what the sink holds is of no use then), [`ProtocolError::Operator`] if the sink
    /// fails.
    pub fn seal_to<W: Write>(
        &self,
        entropy: &SealEntropy,
        sink: W,
        progress: impl FnMut(usize),
    ) -> Result<SealedTo<W, ClosedClient>, ProtocolError> {
        let SealedTo { sink, server_hash, client, report } = self.run(KeepHints::No, entropy, sink, progress)?;
        Ok(SealedTo { sink, server_hash, client: ClosedClient(client), report })
    }

    fn run<W: Write>(
        &self,
        keep: KeepHints,
        entropy: &SealEntropy,
        sink: W,
        mut progress: impl FnMut(usize),
    ) -> Result<SealedTo<W, ClientModel>, ProtocolError> {
        let id = entropy.model_id();
        let planned = PlannedOperator::all(self.model, self.plan, self.costs)?;
        let sealing = Sealing { model: self.model, entropy, id };
        let head = |(index, operator): (usize, &PlannedOperator<'_>)| sealing.head(index, operator);
        let heads = planned.iter().enumerate().map(head).collect::<Result<Vec<_>, _>>()?;
        let mut out = ModelWriter::new(sink, id, &heads)?;
        drop(heads);
        let (mut operators, mut report) = (vec![], vec![]);
        for (index, operator) in planned.into_iter().enumerate() {
            let key = sealing.operator(index, &operator, keep, &mut out)?;
            report.push(OperatorReport::of(&operator, &key));
            operators.push(ClientOperator { node: operator.node, layout: operator.blueprint.layout, key });
            progress(index + 1);
        }
        let failure = |r: &OperatorReport| r.noise.log2_failure + (r.strips as f64).log2();
        let got = sum_log2(report.iter().map(failure));
        if got > MAX_FAILURE_LOG2 {
            return Err(ProtocolError::Noise { got, limit: MAX_FAILURE_LOG2 });
        }
        let (sink, server_hash) = out.finish()?;
        let client = ClientModel { id, outline: self.model.outline()?, operators, origin: None };
        Ok(SealedTo { sink, server_hash, client, report })
    }
}

/// All that the operators of one sealing share.
struct Sealing<'a> {
    model: &'a QuantModel,
    entropy: &'a SealEntropy,
    id: [u8; 16],
}

impl Sealing<'_> {
    fn setting<'o>(&self, index: usize, operator: &'o PlannedOperator<'_>, wanted: &'o Wanted) -> OperatorSetting<'o> {
        OperatorSetting {
            parameters: &operator.blueprint.parameters,
            id: OperatorId { model: self.id, operator: index as u32 },
            wanted,
            input_bound: self.model.config().activation_bound(),
        }
    }

    /// Returns what stands in the server's bundle before any row of an operator: its head, and
    /// which rows are open.
    fn head(&self, index: usize, operator: &PlannedOperator<'_>) -> Result<(SealedHead, Vec<bool>), ProtocolError> {
        let wanted = wanted(operator)?;
        let head = self.setting(index, operator, &wanted).head(matrix_shape(operator), self.entropy)?;
        Ok((head, operator.open.clone()))
    }

    /// Seals operator number `index`, writes its rows to `out`, and returns its key, with hints if
    /// `keep` says so.
    fn operator<W: Write>(
        &self,
        index: usize,
        operator: &PlannedOperator<'_>,
        keep: KeepHints,
        out: &mut ModelWriter<W>,
    ) -> Result<OperatorKey, ProtocolError> {
        let weights = &self.model.layer(operator.node)?.weights;
        let row = |row| operator.blueprint.layout.row(weights, row);
        let matrix = PlainMatrix { shape: matrix_shape(operator), open: &operator.open, row: &row };
        let wanted = wanted(operator)?;
        let setting = self.setting(index, operator, &wanted);
        seal_matrix(setting, &matrix, keep, self.entropy, |rows| Ok(out.rows(&rows)?))
    }
}

fn wanted(operator: &PlannedOperator<'_>) -> Result<Wanted, ProtocolError> {
    let degree = operator.blueprint.parameters.ring().degree();
    Ok(operator.blueprint.layout.wanted().expand(degree)?)
}

fn matrix_shape(operator: &PlannedOperator<'_>) -> MatrixShape {
    let layout = &operator.blueprint.layout;
    MatrixShape { rows: layout.rows(), blocks: layout.blocks(), tiles: layout.row_tiles() }
}
