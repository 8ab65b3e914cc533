//! The client's part of a sealed network: keys and layouts. Whoever holds it can recover the model:
//! it belongs to the owner's trust domain.

use jali_leak::Origin;
use jali_mask::OperatorKey;
use jali_model::Outline;
use jali_pack::Layout;

use crate::message::MAX_IMAGES;

/// One operator as the client knows it.
#[derive(Debug)]
pub struct ClientOperator {
    /// Index of the linear layer's node in the graph.
    pub node: usize,
    /// Where inputs, weights and outputs stand in ring elements.
    pub layout: Layout,
    /// Secrets and hints of the rows, the public vector and the check vectors.
    pub key: OperatorKey,
}

/// All that a client holds for one sealed network.
pub struct ClientModel {
    pub(crate) id: [u8; 16],
    pub(crate) outline: Outline,
    pub(crate) operators: Vec<ClientOperator>,
    pub(crate) origin: Option<Origin>,
}

impl std::fmt::Debug for ClientModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientModel(withheld)")
    }
}

impl ClientModel {
    /// Sets where the plan comes from, which goes into the bundle.
    pub fn set_origin(&mut self, origin: Origin) {
        self.origin = Some(origin);
    }

    /// Returns the quantised network without its weights.
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// Returns the public id of the sealed model, 16 bytes.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// Returns the operators, in the order of the network's linear layers.
    pub fn operators(&self) -> &[ClientOperator] {
        &self.operators
    }

    /// Returns the most images of one inference: each of their strips is an input of a request.
    pub fn max_images(&self) -> usize {
        MAX_IMAGES / self.operators.iter().map(|o| o.layout.strips()).max().unwrap_or(1)
    }

    /// Returns the bytes that the hints of all operators take in memory.
    pub fn hint_bytes(&self) -> usize {
        self.operators.iter().map(|o| o.key.hint_bytes()).sum()
    }
}
