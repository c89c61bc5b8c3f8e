//! What stands between hub and cloud: lets through, is down, or answers in the cloud's place as a captive portal or proxy does.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::support::daemon::CLOUD;
use super::support::lab::Lab;

/// Where the hub believes its cloud to be.
pub const FRONT: &str = "127.0.0.1:8788";

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weather {
    /// The cloud answers.
    Clear,
    /// Connections end at once.
    Down,
    /// Somebody else answers, by the number of [`PAGES`].
    Portal(usize),
}

/// Answers of portals, proxies and broken gateways: none of them is the cloud's word.
pub const PAGES: &[&str] = &[
    "HTTP/1.1 302 Found\r\nLocation: http://portal.example/login\r\n",
    "HTTP/1.1 403 Forbidden\r\nServer: block-page\r\nContent-Type: text/html\r\n",
    "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n",
    "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n",
    "HTTP/1.1 404 Not Found\r\nServer: nginx\r\nContent-Type: text/html\r\n",
    "HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\n",
];

struct State {
    weather: Weather,
    open: Vec<TcpStream>,
}

/// The front, which serves until the test ends.
#[derive(Clone)]
pub struct Front(Arc<Mutex<State>>);

impl Front {
    /// Listens in the hub's namespace.
    pub fn start(lab: &Lab) -> Self {
        let front = Self(Arc::new(Mutex::new(State { weather: Weather::Clear, open: Vec::new() })));
        let listener = lab.in_hub(|| async { TcpListener::bind(FRONT).expect("a port of our own") });
        let serving = front.clone();
        lab.spawn_in_hub(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let front = serving.clone();
                thread::spawn(move || front.serve(stream));
            }
        });
        front
    }

    /// Changes the weather; connections of before end.
    pub fn set(&self, weather: Weather) {
        let mut state = self.0.lock().unwrap();
        state.weather = weather;
        for stream in state.open.drain(..) {
            // Most have ended already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn serve(&self, mut hub: TcpStream) {
        let weather = {
            let mut state = self.0.lock().unwrap();
            state.open.extend(hub.try_clone());
            state.weather
        };
        match weather {
            Weather::Down => {}
            Weather::Clear => self.pass_on(hub),
            Weather::Portal(page) => answer(&mut hub, PAGES[page % PAGES.len()]),
        }
    }

    fn pass_on(&self, hub: TcpStream) {
        let Ok(cloud) = TcpStream::connect(CLOUD) else { return };
        self.0.lock().unwrap().open.extend(cloud.try_clone());
        let (Ok(mut from_hub), Ok(mut to_cloud)) = (hub.try_clone(), cloud.try_clone()) else { return };
        let (mut from_cloud, mut to_hub) = (cloud, hub);
        let up = thread::spawn(move || {
            let _ = std::io::copy(&mut from_hub, &mut to_cloud);
            let _ = to_cloud.shutdown(Shutdown::Write);
        });
        let _ = std::io::copy(&mut from_cloud, &mut to_hub);
        let _ = to_hub.shutdown(Shutdown::Both);
        let _ = up.join();
    }
}

/// One request read as far as its head, one page, and the end.
fn answer(hub: &mut TcpStream, head: &str) {
    let _ = hub.set_read_timeout(Some(Duration::from_secs(2)));
    let mut request: Vec<u8> = Vec::new();
    let mut chunk = [0; 1024];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        match hub.read(&mut chunk) {
            Ok(length) if length > 0 => request.extend(&chunk[..length]),
            _ => return,
        }
    }
    let page = "<html><body>Welcome. Please sign in to use this network.</body></html>";
    let _ = write!(hub, "{head}Content-Length: {}\r\nConnection: close\r\n\r\n{page}", page.len());
}
