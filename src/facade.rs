//! What the integration tests, the benches and the fuzz targets take hold of, where it stands in the tree. It is no promise to
//! anybody else, and the rest of the library is private: so the compiler finds what nobody uses any more.

pub mod admin {
    pub mod auth {
        pub use crate::admin::auth::Guard;
    }
    pub mod server {
        pub use crate::admin::server::{AdminOptions, AdminServer, BindError};
    }
    pub mod tls {
        pub use crate::admin::tls::{KeyPair, Tls};
    }
    pub mod wire {
        pub use crate::admin::wire::{
            AccessAction, AccessOutcome, AccessReport, AccessView, BindOrder, BindResult, BluetoothStatus, BundleNode,
            CertificateForms, CloseResult, CloudStatus, CommissionEvent, CommissionLine, CommissionRequest,
            CommissionResult, ControllerBundle, ControllerName, ControllerOrder, ControllerRemoval, ControllerView,
            Controllers, Diagnosis, DifferingField, DiscoverChange, DiscoverQuery, Discovered, DiscoveredNode,
            DoctorFinding, DoctorSeverity, Encryption, EnrolRequest, FabricInfo, Failure, ImportRoot, Invitation,
            InviteOrder, InviteView, LogQuery, NetworkList, NetworkOrder, NetworkView, NodeAccess, NodeAction,
            NodeCheck, NodeComparison, NodeCounts, NodeDetail, NodeRef, NodeSync, Nodes, NodesQuery, Outbox,
            OutboxCounts, OutboxItem, Refusal, RemoveResult, RemoveRoot, RenewOrder, ShareResult, Status, SyncQuery,
            SyncReport, Timings, Verdict,
        };
    }
}
pub mod attestation {
    pub use crate::attestation::{Evidence, Material, Report, TrustStore, verify, verify_material};
    pub mod csr {
        pub use crate::attestation::csr::verify_csr;
    }
    pub mod policy {
        pub use crate::attestation::policy::{Outcome, decide};
    }
}
pub mod backup {
    pub use crate::backup::{Identity, Lock, Recipient, Unlock, decrypt, encrypt, export_root, make, read};
}
pub mod bind {
    pub use crate::bind::{
        BindReceipt, BindRequest, BindState, BindStatus, CloudDevice, CloudMatterInfo, CloudRecord, MatterInfo,
    };
    pub mod codes {
        pub use crate::bind::codes::{CODES, CodeMeaning, meaning_of};
    }
}
pub mod bluetooth {
    pub use crate::bluetooth::Bluetooth;
}
pub mod cli {
    pub mod client {
        pub use crate::cli::client::{AdminClient, PLAIN, SLOW};
    }
}
pub mod cloud {
    pub use crate::cloud::{Client, MemoryTokens, Meter, RENEW_AHEAD};
    pub mod budget {
        pub use crate::cloud::budget::Budget;
    }
    pub mod login {
        pub use crate::cloud::login::{encrypt_password, signature};
    }
    pub mod wire {
        pub use crate::cloud::wire::{BoundData, Envelope, PageData, RecordData};
    }
}
pub mod commissioning {
    pub mod error {
        pub use crate::commissioning::error::{CommissioningError, Disposition};
    }
    pub mod ports {
        pub use crate::commissioning::ports::{
            AttributePath, DiscoverError, Discovery, FailSafe, LinkError, MatterLink, NoAnswer, NodeStore,
            OperationalSession, PaseSession, ProvisionalNode, Stage, Unfinished,
        };
    }
    pub mod step {
        pub use crate::commissioning::step::Step;
    }
}
pub mod config {
    pub use crate::config::{
        AllowTest, AttestationConfig, BeforeCommissioning, BluetoothConfig, CloudConfig, NetworkConfig, OnAccessDrift,
        OnCloudMissing, OnRejected,
    };
    pub mod bearer {
        pub use crate::config::bearer::make;
    }
}
pub mod controller {
    pub use crate::controller::ControllerState;
    pub mod csr {
        pub use crate::controller::csr::{CheckedCsr, request};
    }
    pub mod invite {
        pub use crate::controller::invite::InviteCode;
    }
}
pub mod dcl {
    pub mod schedule {
        pub use crate::dcl::schedule::{History, wait};
    }
}
pub mod discovery {
    pub use crate::discovery::{DiscoveryEvent, LanDiscovery, Seen};
    #[cfg(feature = "sim")]
    pub mod fuzz {
        pub use crate::discovery::fuzz::heard;
    }
    pub mod txt {
        pub use crate::discovery::txt::{parse_commissionable, parse_operational_instance};
    }
}
pub mod fabric {
    pub use crate::fabric::{AclEntry, AclLimits, Cat, CatGrant, Privilege, granted_cats, plan_acl};
}
pub mod failpoint {
    pub use crate::failpoint::{ALL, VARIABLE};
}
pub mod hub {
    pub mod doors {
        pub use crate::hub::doors::{
            AccessDoor, BindingDoor, CommissionDoor, ControllersDoor, DiscoverDoor, DoctorDoor, Intent, InventoryDoor,
            InvitesDoor, KeysDoor, LogDoor, NetworksDoor, OutboxDoor, ProgressSink, RemovalDoor, SharingDoor,
            StatusDoor, StrangersDoor, SyncDoor, SyncProgress,
        };
    }
}
pub mod journal {
    pub use crate::journal::{Event, EventSink, Level};
}
pub mod keystore {
    pub use crate::keystore::{KeyBundle, Keystore};
}
pub mod matter {
    pub use crate::matter::{CaseLink, Credentials, Link, PaseLink, Stack, StackOptions, mint};
    pub mod credentials {
        pub use crate::matter::credentials::reissue_hub_noc;
    }
    #[cfg(feature = "sim")]
    pub mod fuzz {
        pub use crate::matter::fuzz::reads;
    }
    pub mod x509 {
        pub use crate::matter::x509::to_pem;
    }
}
pub mod node {
    #[cfg(feature = "sim")]
    pub use crate::node::sample::sample;
    pub use crate::node::{
        Announced, AttestationSummary, BasicInformation, BluetoothNode, CommissionableNode, CommissionableTxt,
        FabricId, NodeId, NodeRecord, NodeState, Peer, ScopedAddress,
    };
}
pub mod onboarding {
    pub use crate::onboarding::{Discriminator, MAX_DISCRIMINATOR, SetupCode, check_passcode};
}
pub mod outbox {
    pub mod dispatcher {
        pub use crate::outbox::dispatcher::{DispatchOptions, Dispatcher, Now, OutboxHandle, wait_for};
    }
    pub mod foreign {
        pub use crate::outbox::foreign::ForeignAnswer;
    }
    pub mod ports {
        pub use crate::outbox::ports::{
            BindApi, BindPreview, BindingCodeSource, CloudError, OutboxEntry, OutboxId, OutboxState, OutboxStore,
            OutboxTask,
        };
    }
    pub mod schedule {
        pub use crate::outbox::schedule::{ReadBack, RowAction, RowStep, SendOutcome, action, advance, begin_sending};
    }
}
pub mod plain {
    pub use crate::plain::is_harmless;
}
pub mod reconcile {
    pub mod compare {
        pub use crate::reconcile::compare::{CloudView, DeviceFacts, DeviceView, Views, compare, superseded};
    }
    pub mod mend {
        pub use crate::reconcile::mend::{Policy, mend};
    }
}
pub mod rhythm {
    pub use crate::rhythm::Place;
}
pub mod secret {
    pub use crate::secret::{AuthKey, BindingCode, IpkEpochKey, OperationalSigningKey, OperatorSecret, Passcode};
}
#[cfg(feature = "sim")]
pub mod sim {
    pub mod cloud {
        pub use crate::sim::cloud::{Fault, FaultKind, IdStorage, Scenario, SimCloud, Traffic};
    }
    pub mod evidence {
        pub use crate::sim::evidence::{
            Builder, Evidence, TEST_PAA_NOVID_CERT, attestation_elements, generate, nocsr_elements, sign,
        };
        pub mod certificate {
            pub use crate::sim::evidence::certificate::CertificateSpec;
        }
    }
    pub mod namespace {
        pub use crate::sim::namespace::enter_private_network;
    }
    pub mod virtual_device {
        pub use crate::sim::virtual_device::{VirtualDeviceOptions, run};
    }
}
pub mod store {
    pub use crate::store::{AttemptState, FabricState, JournalFilter, JournalLimits, NewFabric, Store};
}
pub mod telemetry {
    pub mod exposition {
        pub use crate::telemetry::exposition::Exposition;
    }
    pub mod metrics {
        pub use crate::telemetry::metrics::{HubStanding, Metrics};
    }
}
