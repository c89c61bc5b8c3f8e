//! The thread on which rs-matter runs, and how work gets onto it.
//!
//! One OS thread owns one `Matter`. A single root future polls its transport, a responder that answers "busy" to whatever a
//! device asks of us (an unclaimed message would hold the one receive buffer), and all jobs, under one waker (see
//! `waker`): rs-matter's `Signal` keeps a single waker, so jobs in tasks of their own would wake each other for ever.
//! Jobs come by channel from any tokio task; a job whose caller has gone is dropped where it stands. If the thread ends,
//! every later call gets `LinkError::Stack`, and [`Stack::health`] says why. Not here: what jobs do.

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::num::NonZeroU8;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::thread::JoinHandle;

use futures_util::FutureExt;
use rs_matter::crypto::{CanonAeadKeyRef, CanonPkcSecretKeyRef};
use rs_matter::dm::clusters::basic_info::BasicInfoConfig;
use rs_matter::dm::devices::test::{TEST_DEV_ATT, TEST_DEV_COMM};
use rs_matter::error::{Error, ErrorCode};
use rs_matter::respond::Responder;
use rs_matter::transport::exchange::Exchange;
use rs_matter::{MATTER_PORT, Matter};
use tokio::sync::{mpsc, oneshot, watch};

use crate::commissioning::ports::{CheckInMessage, LinkError};
use crate::keystore::KeyBundle;
use crate::matter::btp::Bluetooth;
use crate::matter::credentials::{ADMIN_VENDOR_ID, Backend, backend};
use crate::matter::heard::Watchers;
use crate::matter::implied::{Opened, Questions};
use crate::matter::network::Network;
use crate::matter::places::Places;
use crate::matter::socket::{MatterSocket, bind};
use crate::matter::waker::{Activity, calm};

/// rs-matter's handshakes keep certificates and points on the stack, in debug builds several copies of each.
const THREAD_STACK: usize = 4 << 20;

/// Check-ins that may wait to be read: more than a home's devices send at once.
const CHECK_INS: usize = 64;

/// How the stack is set up.
#[derive(Debug, Clone, Default)]
pub struct StackOptions {
    /// UDP port for Matter; 0 takes any free one, which is right unless a firewall must know it.
    pub port: u16,
}

/// The stack did not start.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// The port is taken, or sockets are not allowed.
    #[error("UDP port {port} cannot be opened")]
    Socket { port: u16, source: io::Error },
    #[error("there is no thread for the Matter stack")]
    Thread(#[source] io::Error),
    /// rs-matter refuses the fabric's keys or certificates.
    #[error("the fabric cannot be installed: {0}")]
    Fabric(String),
}

/// Whether the stack's thread runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StackHealth {
    Running,
    /// The daemon ends.
    Stopped,
    /// It ended by itself; the daemon should restart.
    Failed(String),
}

/// What jobs work with. Lives on the stack's thread.
pub(crate) struct Context {
    pub matter: &'static Matter<'static>,
    pub crypto: &'static Backend,
    pub fabric: NonZeroU8,
    pub watchers: Watchers,
    pub places: Places,
    pub bluetooth: Bluetooth,
    /// An idle exchange for every session in use: rs-matter evicts the least recently used session when its table of 64
    /// is full, but never one that has an exchange.
    pub pins: RefCell<HashMap<u32, Exchange<'static>>>,
}

type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;
type Job = Box<dyn FnOnce(Rc<Context>) -> LocalFuture + Send>;

/// A handle to the stack; clones share it. The thread ends when [`Stack::stop`] is called or every handle is gone.
#[derive(Clone)]
pub struct Stack {
    jobs: mpsc::UnboundedSender<Job>,
    shared: Arc<Shared>,
}

struct Shared {
    health: watch::Sender<StackHealth>,
    stop: tokio_util::sync::CancellationToken,
    thread: Mutex<Option<JoinHandle<()>>>,
    check_ins: Mutex<Option<mpsc::Receiver<CheckInMessage>>>,
    port: u16,
}

impl Stack {
    /// Opens the socket, starts the thread and installs the fabric.
    ///
    /// # Errors
    /// See [`StackError`]; nothing runs then.
    pub fn start(options: &StackOptions, bundle: &KeyBundle) -> Result<Self, StackError> {
        let socket_error = |source| StackError::Socket { port: options.port, source };
        let socket = bind(options.port).map_err(socket_error)?;
        let port = socket.local_addr().map_err(socket_error)?.port();
        let (jobs, receiver) = mpsc::unbounded_channel();
        let (checked_in, check_ins) = mpsc::channel(CHECK_INS);
        let shared = Arc::new(Shared {
            health: watch::Sender::new(StackHealth::Running),
            stop: tokio_util::sync::CancellationToken::new(),
            thread: Mutex::new(None),
            check_ins: Mutex::new(Some(check_ins)),
            port,
        });
        let (started, start) = std::sync::mpsc::channel();
        let (on_thread, bundle) = (Arc::clone(&shared), bundle.clone());
        // One for this thread alone, with its own timers: nobody else is woken for them.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(StackError::Thread)?;
        let thread = std::thread::Builder::new()
            .name("matter".to_owned())
            .stack_size(THREAD_STACK)
            .spawn(move || {
                let work = thread_main((socket, checked_in), &bundle, receiver, &on_thread, &started);
                let run = AssertUnwindSafe(|| runtime.block_on(work));
                on_thread.health.send_replace(match std::panic::catch_unwind(run) {
                    Ok(Ok(())) => StackHealth::Stopped,
                    Ok(Err(what)) => StackHealth::Failed(what),
                    Err(panic) => StackHealth::Failed(panic_text(&*panic)),
                });
            })
            .map_err(StackError::Thread)?;
        *shared.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        match start.recv() {
            Ok(Ok(())) => Ok(Self { jobs, shared }),
            Ok(Err(what)) => Err(StackError::Fabric(what)),
            Err(_) => Err(StackError::Fabric("the Matter thread ended at once".to_owned())),
        }
    }

    /// Whether the thread runs.
    pub fn health(&self) -> StackHealth {
        self.shared.health.borrow().clone()
    }

    /// Comes back when the thread has ended by itself, with the reason.
    pub async fn failed(&self) -> String {
        let mut health = self.shared.health.subscribe();
        loop {
            if let StackHealth::Failed(what) = &*health.borrow_and_update() {
                return what.clone();
            }
            if health.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The UDP port in use.
    pub fn port(&self) -> u16 {
        self.shared.port
    }

    /// The check-ins that come from now on; `None` where somebody has taken them before.
    pub fn check_ins(&self) -> Option<mpsc::Receiver<CheckInMessage>> {
        self.shared.check_ins.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Sends a job through the thread and back.
    ///
    /// # Errors
    /// The stack has ended. One that stands still does not answer: the caller sets the deadline.
    pub async fn answers(&self) -> Result<(), LinkError> {
        self.run(async |_| Ok(())).await
    }

    /// Puts the hub's reissued key and NOC to use. Sessions that are open keep the CATs they began with.
    ///
    /// # Errors
    /// The stack has ended, or the bundle is of another fabric or does not fit together.
    pub async fn renew_hub_noc(&self, bundle: &KeyBundle) -> Result<(), LinkError> {
        let bundle = bundle.clone();
        self.run(move |context| async move {
            renew(&context, &bundle).map_err(|error| LinkError::Stack { what: format!("the hub's NOC: {error}") })
        })
        .await
    }

    /// Ends the thread: jobs under way are dropped and their callers get `LinkError::Stack`.
    pub async fn stop(&self) {
        self.shared.stop.cancel();
        let thread = self.shared.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic is in `health` already.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// Runs an async closure on the thread. Dropping the returned future drops the job.
    pub(crate) async fn run<F, Fut, T>(&self, job: F) -> Result<T, LinkError>
    where
        F: FnOnce(Rc<Context>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, LinkError>> + 'static,
        T: Send + 'static,
    {
        let (mut answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |context| {
            Box::pin(async move {
                let work = job(context);
                tokio::select! {
                    biased;
                    () = answer.closed() => {}
                    result = AssertUnwindSafe(work).catch_unwind() => {
                        let result = result.unwrap_or_else(|panic| Err(LinkError::Stack { what: panic_text(&*panic) }));
                        let _ = answer.send(result);
                    }
                }
            })
        });
        self.jobs.send(job).map_err(|_| self.gone())?;
        answered.await.map_err(|_| self.gone())?
    }

    /// Runs an async closure on the thread for as long as it takes, without waiting for it.
    pub(crate) fn spawn<F, Fut>(&self, job: F)
    where
        F: FnOnce(Rc<Context>) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + 'static,
    {
        // Where the thread has ended there is nobody left to run it.
        let _ = self.jobs.send(Box::new(move |context| Box::pin(job(context))));
    }

    /// Runs something short on the thread without waiting for it.
    pub(crate) fn post(&self, job: impl FnOnce(&Context) + Send + 'static) {
        // Where the thread has ended there is nothing left to do it to.
        let _ = self.jobs.send(Box::new(move |context| Box::pin(async move { job(&context) })));
    }

    fn gone(&self) -> LinkError {
        let what = match self.health() {
            StackHealth::Failed(what) => what,
            StackHealth::Running | StackHealth::Stopped => "it has been stopped".to_owned(),
        };
        LinkError::Stack { what }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("without a message"))
}

/// A peer that does not say how often it listens is taken at the specification's defaults (Matter Core 4.13.1): rs-matter's
/// own are ten times slower for an idle one.
const OURSELVES: BasicInfoConfig<'static> =
    BasicInfoConfig { vid: ADMIN_VENDOR_ID, pid: 0x8001, sai: Some(300), sii: Some(500), ..BasicInfoConfig::new() };

async fn thread_main(
    (socket, check_ins): (std::net::UdpSocket, mpsc::Sender<CheckInMessage>),
    bundle: &KeyBundle,
    jobs: mpsc::UnboundedReceiver<Job>,
    shared: &Shared,
    started: &std::sync::mpsc::Sender<Result<(), String>>,
) -> Result<(), String> {
    // Leaked: exchanges borrow it for as long as the thread runs, which is as long as the process. TEST_DEV_COMM and
    // TEST_DEV_ATT are what a device would present; an administrator opens no commissioning window and never does.
    let matter: &'static Matter<'static> =
        Box::leak(Box::new(Matter::new(&OURSELVES, TEST_DEV_COMM, &TEST_DEV_ATT, MATTER_PORT)));
    let crypto: &'static Backend = Box::leak(Box::new(backend()));
    let (watchers, questions) = (Watchers::default(), Questions::default());
    let bluetooth = Bluetooth::new(watchers.clone());
    let activity = Activity::new();
    let ready = install(matter, crypto, bundle).map_err(|error| error.to_string()).and_then(|fabric| {
        let (watchers, questions) = (watchers.clone(), questions.clone());
        let socket = MatterSocket::new(socket, watchers, questions, activity.clone(), check_ins, crypto)
            .map_err(|error| error.to_string())?;
        Ok((fabric, socket))
    });
    let (fabric, socket) = match ready {
        Ok(ready) => ready,
        Err(what) => {
            let _ = started.send(Err(what.clone()));
            return Err(what);
        }
    };
    let _ = started.send(Ok(()));
    let context = Rc::new(Context {
        matter,
        crypto,
        fabric,
        watchers,
        places: Places::default(),
        bluetooth: bluetooth.clone(),
        pins: RefCell::default(),
    });
    let network = || Network { bluetooth: &bluetooth, socket: &socket, crypto };
    let opened = Opened::new(crypto, questions);
    let root = async {
        let responder = Responder::new_busy(matter, 0);
        tokio::select! {
            result = matter.run(&opened, network(), network(), network()) => Err(ended("transport", result)),
            result = responder.run::<2>() => Err(ended("responder", result)),
            () = poll_jobs(context, jobs, activity.clone()) => Ok(()),
            () = shared.stop.cancelled() => Ok(()),
        }
    };
    calm(root, activity.clone()).await
}

fn ended(what: &str, result: Result<(), Error>) -> String {
    match result {
        Ok(()) => format!("the {what} ended"),
        Err(error) => format!("the {what} failed: {error}"),
    }
}

fn install(matter: &Matter<'_>, crypto: &Backend, bundle: &KeyBundle) -> Result<NonZeroU8, Error> {
    let key = CanonPkcSecretKeyRef::try_new(bundle.hub_key.expose())?;
    let ipk = CanonAeadKeyRef::try_new(bundle.ipk.expose())?;
    let (rcac, noc, icac) = (&bundle.rcac, &bundle.hub_noc, &bundle.icac);
    matter.with_state(|state| {
        let fabric = state.fabrics.add(crypto, key, rcac, noc, icac, Some(ipk), ADMIN_VENDOR_ID, bundle.hub_node.0)?;
        Ok(fabric.fab_idx())
    })
}

fn renew(context: &Context, bundle: &KeyBundle) -> Result<(), Error> {
    let key = CanonPkcSecretKeyRef::try_new(bundle.hub_key.expose())?;
    context.matter.with_state(|state| {
        if state.fabrics.fabric(context.fabric)?.fabric_id() != bundle.fabric_id.0 {
            return Err(ErrorCode::NocInvalidNoc.into());
        }
        state.fabrics.update(context.crypto, context.fabric, key, &bundle.hub_noc, &bundle.icac).map(drop)
    })
}

/// Polls a changing set of jobs with the caller's own waker; ends when no handle is left and no job runs.
async fn poll_jobs(context: Rc<Context>, mut incoming: mpsc::UnboundedReceiver<Job>, activity: Activity) {
    let mut running: Vec<LocalFuture> = Vec::new();
    let mut open = true;
    poll_fn(move |task| {
        while open {
            match incoming.poll_recv(task) {
                Poll::Ready(Some(job)) => running.push(job(Rc::clone(&context))),
                Poll::Ready(None) => open = false,
                Poll::Pending => break,
            }
        }
        running.retain_mut(|job| job.as_mut().poll(task).is_pending());
        // A job that is done at once, as the watchdog's question, waits for nobody's alarm.
        activity.set_running(!running.is_empty());
        if !open && running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::Cat;
    use crate::matter::credentials::mint;
    use crate::node::{FabricId, NodeId};
    use jiff::Timestamp;

    fn start() -> Stack {
        let cat = Cat::new(0x0001_0001).unwrap();
        let bundle = mint(FabricId(77), NodeId(1000), &[cat], Timestamp::UNIX_EPOCH).unwrap();
        Stack::start(&StackOptions::default(), &bundle).unwrap()
    }

    #[tokio::test]
    async fn a_job_runs_and_the_stack_stops() {
        let stack = start();
        assert_eq!(stack.run(|context| async move { Ok(context.fabric.get()) }).await, Ok(1));
        assert_eq!(stack.health(), StackHealth::Running);
        stack.stop().await;
        assert_eq!(stack.health(), StackHealth::Stopped);
        let after = stack.run(|_| async { Ok(()) }).await;
        assert!(matches!(after, Err(LinkError::Stack { .. })), "{after:?}");
    }

    #[tokio::test]
    async fn a_panic_ends_its_job_and_not_the_stack() {
        let stack = start();
        let result = stack.run(|_| async { if true { panic!("a hostile answer") } else { Ok(()) } }).await;
        assert_eq!(result, Err(LinkError::Stack { what: "panic: a hostile answer".to_owned() }));
        assert_eq!(stack.run(|_| async { Ok(3) }).await, Ok(3));
    }

    #[tokio::test]
    async fn a_job_whose_caller_has_gone_is_dropped() {
        struct Tells(Option<oneshot::Sender<()>>);
        impl Drop for Tells {
            fn drop(&mut self) {
                let _ = self.0.take().map(|sender| sender.send(()));
            }
        }
        let stack = start();
        let (sender, dropped) = oneshot::channel();
        let (began, begun) = oneshot::channel();
        let tells = Tells(Some(sender));
        let task = tokio::spawn(async move {
            let job = move |_| async move {
                let _tells = tells;
                let _ = began.send(());
                std::future::pending::<Result<(), LinkError>>().await
            };
            stack.run(job).await
        });
        begun.await.unwrap();
        task.abort();
        dropped.await.unwrap();
    }

    #[tokio::test]
    async fn bad_keys_are_said_at_the_start() {
        let cat = Cat::new(0x0001_0001).unwrap();
        let mut bundle = mint(FabricId(77), NodeId(1000), &[cat], Timestamp::UNIX_EPOCH).unwrap();
        bundle.hub_noc.truncate(20);
        assert!(matches!(Stack::start(&StackOptions::default(), &bundle), Err(StackError::Fabric(_))));
    }
}
