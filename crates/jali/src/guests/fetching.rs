//! Fetching tickets from an owner's dealing service.

use std::time::Duration;

use jali_net::{ClientConfig, NetError, dealing};
use jali_tickets::{GuestIdentity, Wallet, on_demand};

use crate::JaliError;

/// Longest time that a service may keep a guest waiting for its next block.
const PATIENCE: Duration = Duration::from_secs(600);

/// What happens while tickets are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fetching {
    /// So many tickets have come so far, and are in the wallet.
    Came(u32),
    /// The service gives the next block after this time.
    Waits(Duration),
}

/// Fetches blocks of tickets into a wallet until `tickets` have come, or there are no more. Every
/// half is checked, and on disk when this returns. `progress` hears what happens. While the service
/// keeps the guest waiting, other processes may use the wallet.
///
/// Fetch ahead: who deals sees when tickets are asked for, and should not learn from it when images
/// are classified.
///
/// # Errors
/// [`JaliError::Tickets`] for a wallet into which nothing can be fetched, or halves that the owner
/// has not signed; [`JaliError::Net`]. What came before is in the wallet.
pub fn fetch(
    wallet: &mut Wallet,
    identity: &GuestIdentity,
    config: &ClientConfig,
    tickets: u32,
    mut progress: impl FnMut(Fetching),
) -> Result<u32, JaliError> {
    wallet.check_room()?;
    wallet.check_writable()?;
    let (mut came, mut waited) = (0, Duration::ZERO);
    while came < tickets && (came == 0 || wallet.check_room().is_ok()) {
        let m = wallet.manifest();
        let most = on_demand::block_bytes(m, m.on_demand.map_or(0, |on_demand| on_demand.block));
        match dealing::fetch(config, &m.batch, wallet.credential(), most) {
            Ok(mut answer) => {
                came += wallet.accept(identity, &mut answer)?;
                progress(Fetching::Came(came));
            }
            Err(NetError::Busy { retry_after, .. }) if waited + retry_after <= PATIENCE => {
                progress(Fetching::Waits(retry_after));
                wallet.free_while(identity, || std::thread::sleep(retry_after))?;
                waited += retry_after;
            }
            // The service may have dealt what was lost on the way: then there is no more.
            Err(NetError::Status { status: 410, .. }) if came > 0 => break,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(came)
}
