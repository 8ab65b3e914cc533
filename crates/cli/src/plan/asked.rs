//! The policy that `jali plan create` is asked for.

use std::str::FromStr;

use jali_leak::{LeakError, Policy, of_layers};
use jali_model::Graph;

/// A policy, or one that names a number of layers of a network yet to be read.
#[derive(Clone)]
pub(super) enum Asked {
    Policy(Policy),
    OfLayers(String),
}

impl FromStr for Asked {
    type Err = LeakError;

    fn from_str(text: &str) -> Result<Self, LeakError> {
        let names_layers = text.ends_with("-layers") && text.chars().any(|c| c.is_ascii_digit());
        Ok(if names_layers { Self::OfLayers(text.into()) } else { Self::Policy(text.parse()?) })
    }
}

impl Asked {
    /// The policy with the fraction of a network's weights that it leaves open.
    pub(super) fn of(&self, graph: &Graph, leak: Option<f64>) -> Result<(Policy, f64), LeakError> {
        match (self, leak) {
            (Self::Policy(policy), Some(leak)) => Ok((*policy, leak)),
            (Self::Policy(policy), None) => {
                let what = "--leak F, the fraction of the weights to leave open";
                Err(LeakError::Needs { policy: policy.to_string(), what })
            }
            (Self::OfLayers(name), None) => match of_layers(graph, name)? {
                Some(found) => Ok(found),
                None => {
                    let known = "last-N-layers and first-N-layers for a number N".into();
                    Err(LeakError::UnknownPolicy { got: name.clone(), known })
                }
            },
            (Self::OfLayers(name), Some(_)) => {
                Err(LeakError::Needs { policy: name.clone(), what: "no --leak: it says by itself how much stays open" })
            }
        }
    }
}
