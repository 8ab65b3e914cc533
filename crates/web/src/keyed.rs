//! A client with its keys, from the bytes of its bundle.

use std::cell::{Cell, RefCell};
use std::io::Cursor;
use std::rc::Rc;

use jali_bundle::hex;
use jali_mask::{RequestContext, RequestEntropy};
use jali_model::{Outline, Tensor};
use jali_protocol::{Action, ClientModel, Inference, ProtocolError, StoredClient};
use jali_tickets::passphrase;
use js_sys::{Array, Float32Array, Function, Promise, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use zeroize::Zeroizing;

use crate::failure::{Kind, failure, of_passphrase, of_protocol};
use crate::input::{self, Description};

/// What a client has of its network.
enum Stage {
    /// Hints are to come.
    Opened(Box<StoredClient>),
    /// It can infer.
    Ready(Rc<ClientModel>),
    /// Its hints were wrong: nothing follows.
    Failed,
}

/// A client of the keyed mode.
#[wasm_bindgen]
pub struct KeyedClient {
    stage: RefCell<Stage>,
    /// Number of inferences so far.
    counter: Cell<u64>,
}

impl std::fmt::Debug for KeyedClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyedClient(withheld)")
    }
}

impl KeyedClient {
    fn with_outline<R>(&self, read: impl FnOnce(&Outline) -> R) -> Result<R, JsValue> {
        match &*self.stage.borrow() {
            Stage::Opened(stored) => Ok(read(stored.outline())),
            Stage::Ready(model) => Ok(read(model.outline())),
            Stage::Failed => Err(failed()),
        }
    }

    fn opened<R>(&self, act: impl FnOnce(&mut StoredClient) -> Result<R, ProtocolError>) -> Result<R, JsValue> {
        match &mut *self.stage.borrow_mut() {
            Stage::Opened(stored) => act(stored).map_err(of_protocol),
            Stage::Ready(_) => Err(failure(Kind::Usage, "its hints are there already")),
            Stage::Failed => Err(failed()),
        }
    }
}

fn described(outline: &Outline) -> Description<'_> {
    Description { shape: outline.graph().input_shape(), preprocess: outline.preprocess() }
}

fn failed() -> JsValue {
    failure(Kind::Usage, "this client has failed: open its bundle again")
}

#[wasm_bindgen]
impl KeyedClient {
    /// Reads a client's bundle, which the passphrase unlocks if there is one. Its hints come from
    /// the server, one message for each operator, before it can infer.
    ///
    /// # Errors
    /// `Error` of the kind `damaged` for bytes that are damaged or another file, `locked` if
    /// passphrase and file do not fit together.
    #[wasm_bindgen(constructor)]
    pub fn open(bundle: Vec<u8>, passphrase: Option<String>) -> Result<Self, JsValue> {
        let passphrase = passphrase.map(Into::into);
        let bundle = passphrase::unlock(Zeroizing::new(bundle), passphrase.as_ref());
        let bundle = bundle.map_err(|fault| of_passphrase(&fault))?;
        let stored = StoredClient::read(Cursor::new(&bundle[..])).map_err(of_protocol)?;
        Ok(Self { stage: RefCell::new(Stage::Opened(Box::new(stored))), counter: Cell::new(0) })
    }

    /// Public id of the sealed model, 32 hexadecimal digits, as it stands in paths.
    ///
    /// # Errors
    /// `Error` if the client has failed.
    #[wasm_bindgen(getter, js_name = modelId)]
    pub fn model_id(&self) -> Result<String, JsValue> {
        let id = match &*self.stage.borrow() {
            Stage::Opened(stored) => stored.id(),
            Stage::Ready(model) => model.id(),
            Stage::Failed => return Err(failed()),
        };
        Ok(hex(&id))
    }

    /// Shape of an image: usually channels, height and width.
    ///
    /// # Errors
    /// `Error` if the client has failed.
    #[wasm_bindgen(getter, js_name = inputShape)]
    pub fn input_shape(&self) -> Result<Vec<u32>, JsValue> {
        self.with_outline(|outline| outline.graph().input_shape().iter().map(|&d| d as u32).collect())
    }

    /// Channels, height and width of the network's images.
    ///
    /// # Errors
    /// `Error` of the kind `usage` if it takes no images, or has failed.
    #[wasm_bindgen(getter, js_name = imageSize)]
    pub fn image_size(&self) -> Result<Vec<u32>, JsValue> {
        self.with_outline(|outline| described(outline).image_size())?
    }

    /// The layers that the server computes, in order.
    ///
    /// # Errors
    /// `Error` if the client has failed.
    #[wasm_bindgen(getter, unchecked_return_type = "{ name: string, kind: string }[]")]
    pub fn layers(&self) -> Result<Array, JsValue> {
        let layer = |outline: &Outline, node: usize, kind: &str| {
            let name = outline.graph().nodes().get(node).map_or("", |node| &node.name);
            input::layer(name, kind, None)
        };
        self.with_outline(|o| o.graph().linear_nodes().map(|(at, linear)| layer(o, at, &linear.kind())).collect())
    }

    /// Decodes the bytes of a PNG, JPEG or .npy file into the network's input, as the owner said.
    ///
    /// # Errors
    /// `Error` of the kind `image` with what is wrong.
    pub fn read(&self, file: &[u8]) -> Result<Vec<f32>, JsValue> {
        self.with_outline(|outline| described(outline).read(file))?
    }

    /// Number of operators, whose hints are asked for at
    /// `/v2/models/{modelId}/operators/{operator}/hints`.
    ///
    /// # Errors
    /// `Error` if they are there already.
    #[wasm_bindgen(getter)]
    pub fn operators(&self) -> Result<usize, JsValue> {
        self.opened(|stored| Ok(stored.operators()))
    }

    /// Takes the hints of an operator, and checks them.
    ///
    /// # Errors
    /// `Error` if they are wrong: then the server is not what it should be.
    #[wasm_bindgen(js_name = acceptHints)]
    pub fn accept_hints(&self, operator: usize, message: &[u8]) -> Result<(), JsValue> {
        self.opened(|stored| stored.accept_hints(operator, message))
    }

    /// Gets ready, once all hints are there.
    ///
    /// # Errors
    /// `Error` if some are missing.
    pub fn ready(&self) -> Result<(), JsValue> {
        let stage = self.stage.replace(Stage::Failed);
        let stage = match stage {
            Stage::Opened(stored) => Stage::Ready(Rc::new(stored.finish().map_err(of_protocol)?)),
            other => other,
        };
        self.stage.replace(stage);
        Ok(())
    }

    /// Runs the network on an image and returns its first output. `send(operator, request)` returns
    /// a promise of the server's answer to `/v2/models/{modelId}/operators/{operator}`.
    ///
    /// # Errors
    /// `Error` for numbers that are no image; if the server lies; what `send` rejects with.
    pub async fn infer(&self, image: Vec<f32>, send: Function) -> Result<Float32Array, JsValue> {
        let model = match &*self.stage.borrow() {
            Stage::Ready(model) => model.clone(),
            _ => return Err(failure(Kind::Usage, "hints are missing: acceptHints takes them, then ready")),
        };
        let shape = model.outline().graph().input_shape().to_vec();
        let image = Tensor::new("image", shape, image).map_err(|e| failure(Kind::Image, e))?;
        let context = RequestContext { counter: self.counter.replace(self.counter.get() + 1), image: 0 };
        let fail = of_protocol;
        let entropy = || RequestEntropy::from_os().map_err(|e| failure(Kind::Usage, e));
        let mut inference = Inference::new(&model, vec![image], context).map_err(fail)?;
        loop {
            match inference.next(entropy()?).map_err(fail)? {
                Action::Done(outputs) => {
                    let first = outputs.first().and_then(|outputs| outputs.first());
                    return Ok(Float32Array::from(first.map_or(&[][..], |output| &output.data)));
                }
                Action::Send { operator, request } => {
                    let body = Uint8Array::from(request.as_slice());
                    let promise: Promise = send.call2(&JsValue::NULL, &operator.into(), &body)?.dyn_into()?;
                    let answer: Uint8Array = JsFuture::from(promise).await?.dyn_into()?;
                    inference.receive(&answer.to_vec()).map_err(fail)?;
                }
            }
        }
    }
}
