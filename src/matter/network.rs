//! What rs-matter sends and receives by: the socket and Bluetooth as one.
//!
//! rs-matter's `ChainedNetwork` asks who has a message and then waits for that one alone. A message that is kept back from rs-matter
//! would hold up all that comes the other way: one unasked word of a device on Bluetooth, and nobody on the network is heard any
//! more. Here whoever has nothing after all is asked again beside the other. Not here: the two themselves (`socket`, `btp`).

use std::future::Future;
use std::net::IpAddr;

use rs_matter::crypto::Crypto;
use rs_matter::error::{Error, ErrorCode};
use rs_matter::transport::network::{Address, NetworkMulticast, NetworkReceive, NetworkSend};

use crate::matter::btp::Bluetooth;
use crate::matter::socket::MatterSocket;

pub(super) struct Network<'a, C, S> {
    pub bluetooth: &'a Bluetooth,
    pub socket: &'a MatterSocket<S>,
    pub crypto: C,
}

impl<C: Crypto, S: Crypto> NetworkSend for Network<'_, C, S> {
    async fn send_to(&mut self, data: &[u8], address: Address) -> Result<(), Error> {
        match address {
            Address::Btp(to) => self.bluetooth.send(data, to, &self.crypto),
            Address::Udp(to) => self.socket.send(data, to),
            Address::Tcp(_) => return Err(ErrorCode::NoNetworkInterface.into()),
        }
        Ok(())
    }
}

impl<C: Crypto, S: Crypto> NetworkReceive for Network<'_, C, S> {
    async fn wait_available(&mut self) -> Result<(), Error> {
        either(self.bluetooth.wait_available(), self.socket.wait_available()).await;
        Ok(())
    }

    async fn recv_from(&mut self, buffer: &mut [u8]) -> Result<(usize, Address), Error> {
        loop {
            let taken = match either(self.bluetooth.wait_available(), self.socket.wait_available()).await {
                Way::Bluetooth => self.bluetooth.take(buffer, &self.crypto),
                Way::Socket => self.socket.take(buffer),
            };
            if let Some(message) = taken {
                return Ok(message);
            }
        }
    }
}

/// Groups are not used: the hub speaks to one node at a time.
impl<C, S> NetworkMulticast for Network<'_, C, S> {
    async fn join(&mut self, _: IpAddr) -> Result<(), Error> {
        Ok(())
    }

    async fn leave(&mut self, _: IpAddr) -> Result<(), Error> {
        Ok(())
    }
}

/// Who has a message.
enum Way {
    Bluetooth,
    Socket,
}

async fn either(bluetooth: impl Future<Output = ()>, socket: impl Future<Output = ()>) -> Way {
    tokio::select! {
        () = bluetooth => Way::Bluetooth,
        () = socket => Way::Socket,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};
    use std::pin::pin;
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;
    use crate::matter::credentials::backend;
    use crate::matter::datagram::tests::unsecured;
    use crate::matter::heard::Watchers;
    use crate::matter::implied::Questions;
    use crate::matter::socket::bind;
    use crate::matter::waker::Activity;

    #[tokio::test]
    async fn what_is_kept_back_on_one_way_does_not_hold_up_the_other() {
        let (watchers, crypto) = (Watchers::default(), backend());
        let own = bind(0).unwrap();
        let hub = SocketAddr::from(([127, 0, 0, 1], own.local_addr().unwrap().port()));
        let socket = MatterSocket::new(
            own,
            watchers.clone(),
            Questions::default(),
            Activity::new(),
            mpsc::channel(1).0,
            &crypto,
        )
        .unwrap();
        let bluetooth = Bluetooth::new(watchers);
        let node = UdpSocket::bind("127.0.0.1:0").unwrap();
        // Nobody opens a session with the hub; a check-in is taken out.
        let opening = unsecured(0x20, true, 1, None, &[0x15, 0x25, 2, 9, 0, 0x18]);
        let check_in = unsecured(0x50, false, 3, None, &[7; 35]);
        let word = unsecured(0x40, true, 1, None, &[1, 0, 0, 0, 0, 0, 2, 0]);
        let mut buffer = [0; 1280];

        let mut network = Network { bluetooth: &bluetooth, socket: &socket, crypto: &crypto };
        let mut hear = async |kept_back: &dyn Fn(), then: &dyn Fn()| {
            let mut received = pin!(network.recv_from(&mut buffer));
            kept_back();
            assert!((&mut received).now_or_never().is_none());
            then();
            timeout(Duration::from_secs(10), received).await.expect("it is heard").unwrap().1
        };
        let by_udp = |message: &[u8]| assert_eq!(node.send_to(message, hub).unwrap(), message.len());
        let from = hear(&|| bluetooth.hear(&opening), &|| by_udp(&word)).await;
        assert_eq!(from, Address::Udp(node.local_addr().unwrap()));
        let from = hear(&|| by_udp(&check_in), &|| bluetooth.hear(&word)).await;
        assert!(from.is_btp(), "{from}");
    }
}
