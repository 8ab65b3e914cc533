//! A network sealed in this process, with what the subcommands say about it.

use std::sync::Arc;

use jali::parts::protocol::OperatorReport;
use jali::{Backend, Client, Costs, InProcess, Plan, QuantModel, Sealing, Server};

use crate::text;

/// A sealed network with both sides at hand.
pub(crate) struct Local {
    pub(crate) model: QuantModel,
    pub(crate) client: Client<InProcess>,
    pub(crate) server: Arc<Server>,
    pub(crate) report: Vec<OperatorReport>,
    /// Length of the server's bundle in bytes.
    pub(crate) sealed_bytes: usize,
}

impl Local {
    /// Seals with a progress bar and starts both sides.
    pub(crate) fn start(model: QuantModel, plan: &Plan, costs: &Costs, backend: Backend) -> anyhow::Result<Self> {
        let bar = text::progress(model.graph().linear_nodes().count(), "sealing");
        let sealing = Sealing::of(&model).plan(plan).costs(*costs);
        let mut sealed = sealing.progress(|done| bar.set_position(done as u64)).seal()?;
        bar.finish_and_clear();
        let (report, sealed_bytes) = (sealed.report().to_vec(), sealed.server_bytes()? as usize);
        let client = sealed.in_process_on(backend)?;
        let server = client.transport().server();
        Ok(Self { model, client, server, report, sealed_bytes })
    }

    /// Bytes of memory that the server's matrices take.
    pub(crate) fn server_memory(&self) -> usize {
        self.server.model().memory()
    }
}

/// Which part of the weights is hidden.
pub(crate) fn hidden_fraction(operators: &[OperatorReport]) -> f64 {
    let sealed: usize = operators.iter().map(|o| o.weights_hidden).sum();
    sealed as f64 / operators.iter().map(|o| o.weights).sum::<usize>() as f64
}
