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
    /// Where things stand in ring elements.
    pub layout: Layout,
    /// Keys, hints, check vectors.
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
    /// Says where the plan comes from: it goes into the bundle.
    pub fn set_origin(&mut self, origin: Origin) {
        self.origin = Some(origin);
    }

    /// The quantised network without its weights.
    pub fn outline(&self) -> &Outline {
        &self.outline
    }

    /// Public id of the sealed model.
    pub fn id(&self) -> [u8; 16] {
        self.id
    }

    /// The operators, in the order of the network's linear layers.
    pub fn operators(&self) -> &[ClientOperator] {
        &self.operators
    }

    /// Most images of one inference: each of their strips is an input of a request.
    pub fn max_images(&self) -> usize {
        MAX_IMAGES / self.operators.iter().map(|o| o.layout.strips()).max().unwrap_or(1)
    }

    /// Bytes that the hints of all operators take in memory.
    pub fn hint_bytes(&self) -> usize {
        self.operators.iter().map(|o| o.key.hint_bytes()).sum()
    }
}
