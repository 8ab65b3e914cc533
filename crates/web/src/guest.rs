//! A guest with its wallet, from the files that a person chooses.

use std::cell::RefCell;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use jali_bundle::{hex, unhex};
use jali_guest::{Backend, GuestError, GuestModel, GuestSession, Output, Turn};
use jali_model::Tensor;
use jali_tickets::envelope::Envelope;
use jali_tickets::greeting::{GuestRefusal, Hello};
use jali_tickets::held::{self, WalletFiles};
use jali_tickets::{GuestIdentity, HeldWallet, Manifest, Token, WalletTicket};
use js_sys::{Array, Date, Float32Array, Function, Promise, Uint8Array};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

use crate::failure::{Kind, failure, of_tickets};
use crate::file::{PageFile, Pieces};
use crate::input::{self, Description};

#[wasm_bindgen(typescript_custom_section)]
const INTERFACES: &str = r#"
/** A WebSocket to `/v2/models/{modelId}/guests`, message by message. */
export interface Line {
  /** Sends a message. `layer` counts those of `layers`; none for the greeting. */
  send(message: Uint8Array, layer?: number): void;
  /** Waits for the server's next message. */
  receive(layer?: number): Promise<Uint8Array>;
}
"#;

#[wasm_bindgen]
extern "C" {
    /// A connection to the server.
    #[wasm_bindgen(typescript_type = "Line")]
    pub type Line;

    #[wasm_bindgen(method, catch)]
    fn send(this: &Line, message: Uint8Array, layer: Option<u32>) -> Result<(), JsValue>;

    #[wasm_bindgen(method, catch)]
    fn receive(this: &Line, layer: Option<u32>) -> Result<Promise, JsValue>;
}

impl Line {
    async fn next(&self, layer: Option<u32>) -> Result<Vec<u8>, JsValue> {
        let message: Uint8Array = JsFuture::from(self.receive(layer)?).await?.dyn_into()?;
        Ok(message.to_vec())
    }
}

/// A guest: it uses a network that it does not have.
#[wasm_bindgen]
pub struct Guest {
    wallet: RefCell<HeldWallet<BufReader<PageFile>>>,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guest(withheld)")
    }
}

#[wasm_bindgen]
impl Guest {
    /// Opens a wallet. `manifest` and `tickets` are its files of these names, `keys` are copies of
    /// its `key`, as it was dealt and as it was stored since; `identity` is the text of the guest's
    /// key. With `owner`, 64 hexadecimal digits, the owner of this public key must have signed it.
    ///
    /// # Errors
    /// `Error` of the kind `damaged` or `locked`.
    #[wasm_bindgen(constructor)]
    pub fn open(
        manifest: &[u8],
        tickets: Pieces,
        keys: Array,
        identity: &str,
        owner: Option<String>,
    ) -> Result<Self, JsValue> {
        let owner = owner.map(|digits| public_key(&digits)).transpose()?;
        let identity = GuestIdentity::from_text(Path::new("the guest's key"), identity).map_err(of_tickets)?;
        let keys: Vec<Vec<u8>> = keys.iter().map(|key| Uint8Array::new(&key).to_vec()).collect();
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let tickets = BufReader::new(PageFile::new(tickets));
        let files = WalletFiles { manifest, tickets, keys: &keys };
        let wallet = HeldWallet::open(files, &identity, owner.as_ref()).map_err(of_tickets)?;
        Ok(Self { wallet: RefCell::new(wallet) })
    }

    /// Name of the network.
    #[wasm_bindgen(getter)]
    pub fn name(&self) -> String {
        self.wallet.borrow().manifest().name.clone()
    }

    /// Public id of the sealed network, 32 hexadecimal digits, as it stands in paths.
    #[wasm_bindgen(getter, js_name = modelId)]
    pub fn model_id(&self) -> String {
        hex(&self.wallet.borrow().manifest().model)
    }

    /// Public id of the batch of tickets, 32 hexadecimal digits: new bytes of `key` are stored
    /// under it.
    #[wasm_bindgen(getter, js_name = batchId)]
    pub fn batch_id(&self) -> String {
        hex(&self.wallet.borrow().manifest().batch)
    }

    /// The owner's public key, 64 hexadecimal digits.
    #[wasm_bindgen(getter)]
    pub fn owner(&self) -> String {
        hex(&self.wallet.borrow().manifest().owner)
    }

    /// Tickets that are not used.
    #[wasm_bindgen(getter)]
    pub fn left(&self) -> u32 {
        self.wallet.borrow().left()
    }

    /// The last day on which the tickets are valid, `YYYY-MM-DD`.
    #[wasm_bindgen(getter)]
    pub fn until(&self) -> String {
        self.wallet.borrow().manifest().until()
    }

    /// Bits that an inference tells the guest at most.
    #[wasm_bindgen(getter, js_name = outputBits)]
    pub fn output_bits(&self) -> u32 {
        self.wallet.borrow().manifest().output_bits
    }

    /// Whether the output tells the class alone: then it is 100 at its place and 0 elsewhere.
    #[wasm_bindgen(getter, js_name = tellsClassAlone)]
    pub fn tells_class_alone(&self) -> bool {
        self.wallet.borrow().description().network.output.classes.is_some()
    }

    /// Bytes of a ticket.
    #[wasm_bindgen(getter, js_name = ticketBytes)]
    pub fn ticket_bytes(&self) -> f64 {
        self.wallet.borrow().manifest().ticket_bytes as f64
    }

    /// Channels, height and width of the network's images.
    ///
    /// # Errors
    /// `Error` of the kind `usage` if it takes no images.
    #[wasm_bindgen(getter, js_name = imageSize)]
    pub fn image_size(&self) -> Result<Vec<u32>, JsValue> {
        self.described(|description| description.image_size())
    }

    /// The layers, in order, and which of them the guest computes alone.
    #[wasm_bindgen(getter, unchecked_return_type = "{ name: string, kind: string, isOpen: boolean }[]")]
    pub fn layers(&self) -> Array {
        let parts = self.wallet.borrow().model().circuit().parts();
        parts.iter().map(|part| input::layer(&part.name, part.kind, Some(part.is_clear))).collect()
    }

    /// Decodes the bytes of a PNG, JPEG or .npy file into the network's input, as the owner said.
    ///
    /// # Errors
    /// `Error` of the kind `image` with what is wrong.
    pub fn read(&self, file: &[u8]) -> Result<Vec<f32>, JsValue> {
        self.described(|description| description.read(file))
    }

    /// Infers: uses up a ticket and returns the network's output. `line` is connected; nothing was
    /// sent on it. `store(key)` returns a promise: it is fulfilled when these bytes of `key` would
    /// be there after a crash, and before that nothing of the ticket is sent.
    ///
    /// # Errors
    /// `Error` of any kind; what `store` and `line` throw or reject with. The ticket is used up
    /// once `store` was called.
    pub async fn infer(&self, input: Vec<f32>, line: Line, store: Function) -> Result<Float32Array, JsValue> {
        let shape = self.wallet.borrow().description().network.head.input_shape().to_vec();
        let image = Tensor::new("image", shape, input).map_err(|e| failure(Kind::Image, e))?;
        let integers = self.wallet.borrow().description().network.quantise(&image);
        let integers = integers.map_err(|e| failure(Kind::Image, e))?;
        let unstored = self.wallet.borrow_mut().take((Date::now() / 1e3) as u64).map_err(of_tickets)?;
        let stored: Promise = store.call1(&JsValue::NULL, &Uint8Array::from(unstored.key()))?.dyn_into()?;
        JsFuture::from(stored).await?;
        let output = self.party().infer(unstored.stored(), &integers, &line).await?;
        let output = self.wallet.borrow().description().network.numbers(&output.integers);
        Ok(Float32Array::from(&output.map_err(|e| failure(Kind::WrongAnswer, e))?.data[..]))
    }
}

impl Guest {
    fn party(&self) -> Party {
        let wallet = self.wallet.borrow();
        Party { model: wallet.model().clone(), manifest: wallet.manifest().clone(), token: wallet.token().clone() }
    }

    fn described<R>(&self, act: impl FnOnce(Description<'_>) -> R) -> R {
        let wallet = self.wallet.borrow();
        let description = wallet.description();
        let shape = description.network.head.input_shape();
        act(Description { shape, preprocess: &description.preprocess })
    }
}

/// What an inference needs of a wallet.
struct Party {
    model: Arc<GuestModel>,
    manifest: Manifest,
    token: Token,
}

impl Party {
    /// Carries an inference's messages.
    async fn infer(&self, ticket: WalletTicket, input: &[i32], line: &Line) -> Result<Output, JsValue> {
        let WalletTicket { index, nonce, ticket } = ticket;
        let Self { model, manifest, token } = self;
        let of_ticket = |e: GuestError| failure(Kind::Damaged, e);
        let parts = model.circuit().parts();
        // What comes behind the last step is the output.
        let behind = parts.len().checked_sub(1);
        let layer =
            |step: usize| parts.iter().position(|part| part.steps.contains(&step)).or(behind).map(|at| at as u32);
        // What is open is computed before the server hears of this guest.
        let (message, start) = GuestSession::begin(model, Backend::best(), ticket, input).map_err(of_ticket)?;
        greet(line, &Hello { batch: manifest.batch, token: token.clone(), first: index, tickets: 1 }).await?;
        let mut envelope = Envelope::new(nonce, model.circuit().counts().exchanges + 1, false);
        line.send(Uint8Array::from(&envelope.outgoing(message)[..]), layer(start.step()))?;
        let mut turn = start.run().map_err(of_ticket)?;
        let output = loop {
            let session = match turn {
                Turn::Done(output) => break output,
                Turn::Waits(session) => session,
                Turn::Goes { message, session } => {
                    line.send(Uint8Array::from(&envelope.outgoing(message)[..]), layer(session.step()))?;
                    session
                }
            };
            let message = envelope
                .incoming(line.next(layer(session.step())).await?)
                .map_err(|e| failure(Kind::WrongAnswer, e))?;
            turn = session.receive(&message).map_err(|e| failure(Kind::WrongAnswer, e))?;
        };
        let signed = envelope.end().signed(manifest, index, &nonce);
        let lied = "its signature does not fit: it is not the server that the owner named, or it lied";
        signed.map(|_| output).ok_or_else(|| failure(Kind::WrongAnswer, lied))
    }
}

/// Shows the ticket, and waits until the server has taken it.
async fn greet(line: &Line, hello: &Hello) -> Result<(), JsValue> {
    line.send(Uint8Array::from(&hello.encode()[..]), None)?;
    match line.next(None).await?.as_slice() {
        [0] => Ok(()),
        [byte] if GuestRefusal::of(*byte).is_some() => {
            let why = GuestRefusal::of(*byte).unwrap_or(GuestRefusal::Failed);
            Err(failure(Kind::Refused, format!("the server takes no ticket: {why}")))
        }
        _ => Err(failure(Kind::WrongAnswer, "the server answered a guest's greeting with something else")),
    }
}

fn public_key(digits: &str) -> Result<[u8; 32], JsValue> {
    let fault = || failure(Kind::Usage, "the owner's public key has 64 hexadecimal digits");
    unhex(digits.as_bytes()).ok_or_else(fault)
}

/// The public id of the batch that a wallet's `manifest` is of, 32 hexadecimal digits.
///
/// # Errors
/// `Error` of the kind `damaged`.
#[wasm_bindgen(js_name = batchOf)]
pub fn batch_of(manifest: &[u8]) -> Result<String, JsValue> {
    Ok(hex(&held::batch_of(manifest).map_err(of_tickets)?))
}
