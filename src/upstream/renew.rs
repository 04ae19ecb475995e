//! After an answer that speaks against the credential: is the credential dead, or may it just not do this?
//!
//! A client that asks for more than a token's scopes allow gets the same 401 as a dead token does. Were that
//! believed, any such client could take the credential from all others; so one is believed only in Azure DevOps'
//! own words, or where the credential fails a plain question too.

use std::{cell::Cell, pin::pin, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method, header::ACCEPT, uri::PathAndQuery};
use http_body_util::{BodyExt, Limited};
use tokio::time::timeout;

use super::{
    Trip, assemble,
    exchange::{Answer, exchange},
    fault::Fault,
    supply::{Supply, Up},
    verdict::{self, Verdict},
};
use crate::{
    audit::Spent,
    config::Credential,
    gate::Host,
    refusal::{Refusal, Refused},
    vault::{Armed, Token},
};

/// For a probe, from its head to the end of its answer.
const DEADLINE: Duration = Duration::from_secs(30);

/// The most that is read of a probe's answer, in bytes.
const ANSWER: usize = 256 * 1024;

/// The most that is read of an answer that no client gets, in bytes, and the time that may take.
const DISMISSED: usize = 64 * 1024;
const DISMISSAL: Duration = Duration::from_secs(1);

/// With the value `Suppress`, asks for a plain 401 in place of a sign-in page, as the gate does for clients.
const NO_SIGN_IN: HeaderName = HeaderName::from_static("x-tfs-fedauthredirect");

impl Trip {
    /// Gives another attempt, with another value of the credential, or a refusal. `renewed`: whether `answer` came
    /// to such an attempt already. Where the credential has no other value, another credential of the rule.
    ///
    /// # Errors
    /// `credential-rejected`, `scope-missing`, `upstream-withheld`; where the probe came to nothing, why.
    pub(super) async fn renew(
        &self,
        armed: Armed,
        answer: Answer,
        verdict: Verdict,
        renewed: bool,
    ) -> Result<Armed, Box<Refused>> {
        let status = Some(answer.response.status());
        let echoed = verdict::holds(answer.response.headers(), |bytes| armed.occurs_in(bytes));
        self.dismiss(answer).await;
        let recorded = armed.recorded();
        let credential = Arc::clone(recorded.credential());
        let question = question(recorded.known().vetted.outgoing.target.organization());
        let (spent, used) = armed.disarm();
        if echoed {
            return self.refuse(spent, Fault::echo(), status);
        }
        let (reason, otherwise) = match verdict {
            Verdict::Dead(reason) => (reason, None),
            Verdict::Doubtful(reason) => (reason, Some(Refusal::ScopeMissing)),
            Verdict::SignIn(reason) => (reason, Some(Refusal::UpstreamWithheld)),
            Verdict::Answer => (String::new(), Some(Refusal::Internal)),
        };
        let spent = match otherwise {
            None => spent,
            Some(why) => match self.probed(spent, question, &credential, &used).await? {
                (spent, true) => return self.refuse(spent, Fault::new(why, reason), status),
                (spent, false) => spent,
            },
        };
        let another = self.upstream.vaults.rejected(&credential, &used, &reason).await;
        if another && !renewed && self.supply.is_replayable() {
            return self.arm_again(spent, "retry", None).await;
        }
        let mut spent = spent;
        if self.supply.is_replayable() && self.upstream.vaults.choose_another(spent.chosen_mut()) {
            return self.arm_again(spent, "retry", None).await;
        }
        self.refuse(spent, Fault::new(Refusal::CredentialRejected, reason), status)
    }

    /// Puts an answer away that no client gets. Its body is read so that the connection can serve again: else a
    /// client could make patgate open one for each request that the credential's scopes do not allow.
    async fn dismiss(&self, answer: Answer) {
        let Answer { response, connection } = answer;
        let mut body = Limited::new(response.into_body(), DISMISSED);
        let read = timeout(DISMISSAL, async {
            while let Some(frame) = body.frame().await {
                frame.ok()?;
            }
            Some(())
        });
        if read.await.is_ok_and(|read| read.is_some()) && self.supply.is_whole() {
            self.upstream.network.pool.give_back(connection);
        }
    }

    /// Whether the credential is alive, by one probe at most a minute: this request's own, or another's.
    async fn probed(
        &self,
        spent: Spent,
        question: Option<PathAndQuery>,
        credential: &Credential,
        used: &Arc<Token>,
    ) -> Result<(Spent, bool), Box<Refused>> {
        let wanted = Cell::new(true);
        let mut asking = pin!(async {
            match question {
                Some(question) if wanted.get() => {
                    self.probe(spent, question).await.map(|(spent, alive)| (spent, Some(alive)))
                }
                _ => Ok((spent, None)),
            }
        });
        let mut asked = None;
        let probe = async {
            let result = asking.as_mut().await;
            // A probe that came to nothing proves nothing.
            let alive = result.as_ref().map_or(true, |(_, alive)| alive.unwrap_or(true));
            asked = Some(result);
            alive
        };
        let alive = self.upstream.vaults.probe_once(credential, used, probe).await;
        // Never asked: somebody else was. Broken off: its intent is written, so it is seen through.
        wanted.set(false);
        let (spent, own) = match asked {
            Some(result) => result?,
            None => asking.await?,
        };
        Ok((spent, own.unwrap_or(alive)))
    }

    /// Asks Azure DevOps whom it takes the credential for, on a connection of its own.
    async fn probe(&self, spent: Spent, question: PathAndQuery) -> Result<(Spent, bool), Box<Refused>> {
        let armed = self.arm_again(spent, "probe", Some(question.path())).await?;
        let asked = timeout(DEADLINE, self.ask(&armed, question)).await;
        let (spent, _) = armed.disarm();
        match asked {
            Ok(Ok(alive)) => Ok((spent, alive)),
            Ok(Err(fault)) => self.refuse(spent, fault, None),
            Err(_) => {
                let detail = format!("the probe of the credential took more than {} s", DEADLINE.as_secs());
                self.refuse(spent, Fault::new(Refusal::UpstreamTimeout, detail), None)
            }
        }
    }

    async fn ask(&self, armed: &Armed, question: PathAndQuery) -> Result<bool, Fault> {
        let host = Host::DevAzure.authority();
        let mut connection = self.upstream.network.connection(&self.connector, host, true).await?;
        connection.carry(armed.token());
        let nothing = Supply::new(None, None, DEADLINE);
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(NO_SIGN_IN, HeaderValue::from_static("Suppress"));
        let request = assemble(armed, host, Method::GET, question, headers, Up::new(&nothing));
        let Answer { response, connection } =
            exchange(connection, request, &nothing, DEADLINE).await.map_err(|failed| failed.fault)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER).collect().await;
        drop(connection);
        let body = body.map_err(|error| Fault::probe(head.status, &error.to_string()))?.to_bytes();
        verdict::of_probe(head.status, &head.headers, &body)
            .ok_or_else(|| Fault::probe(head.status, "no connection data"))
    }
}

/// Where Azure DevOps tells whom it takes a credential for.
fn question(organization: &str) -> Option<PathAndQuery> {
    PathAndQuery::try_from(format!("/{organization}/_apis/connectionData")).ok()
}
