//! patgate: an authenticating reverse proxy between internal tools and Azure DevOps.
//!
//! Nobody holds a token, and every use of one is on record.
//!
//! Read [`pipeline`] next: it is the life of a request, a step a line. Each step is a module:
//!
//! | module | turns | into |
//! |---|---|---|
//! | [`listener`] | bytes | `Arrived` |
//! | [`gate`] | `Arrived` | `Vetted`: one meaning |
//! | [`client`] | `Vetted` | `Known`: who is calling |
//! | [`policy`] | `Known` | `Permitted`: which rule, which credential |
//! | [`limits`] | `Permitted` | `Rationed`: within its share |
//! | [`audit`] | `Rationed` | `Recorded`: the intent is durable |
//! | [`vault`] | `Recorded` | `Armed`: the secret |
//! | [`upstream`] | `Armed` | the answer |
//!
//! Around them: [`config`] reads what was typed into what is true, [`app`] wires the parts,
//! [`refusal`] lists every reason to say no and [`answer`] says it, [`stage`] is the layer that
//! changes a request's type, [`rotation`] makes tokens anew, [`state`] keeps what operators changed,
//! [`admin`] and [`metrics`] tell operators, [`cli`] is the command line, and [`sample`] is a stand-in
//! for Azure DevOps, for trying and for tests.
//!
//! What must always hold stands in `ARCHITECTURE.md`.

pub mod admin;
pub mod answer;
pub mod app;
pub mod audit;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod gate;
pub mod limits;
pub mod listener;
pub mod metrics;
pub mod pipeline;
pub mod policy;
pub mod refusal;
pub mod rotation;
pub mod sample;
pub mod stage;
pub mod state;
pub mod telemetry;
pub mod upstream;
pub mod vault;
