//! Carries the SDK's requests: to the endpoints of the configuration and to this machine's own metadata services,
//! and nowhere else.
//!
//! The SDK reads authorities from many places (`AWS_CONTAINER_CREDENTIALS_FULL_URI`,
//! `AWS_EC2_METADATA_SERVICE_ENDPOINT`, `endpoint_url` of a profile, …). Whichever it read, a request ends here.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use aws_sdk_secretsmanager::config::{
    HttpClient, RuntimeComponents,
    http::{HttpRequest, HttpResponse},
};
use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector},
        result::ConnectorError,
    },
    http::{Response, StatusCode},
};
use bytes::Bytes;
use http::Uri;
use reqwest::{Client, Method};
use zeroize::Zeroizing;

use super::failure::Told;
use crate::{
    config::{Outbound, Trust},
    vault::{VaultError, network},
};

/// Twenty secrets of 64 KiB are the most that one answer holds. In bytes.
const ANSWER: usize = 2 * 1024 * 1024;

/// Where machines of AWS find their own credentials: EC2's metadata service, ECS, EKS Pod Identity.
const METADATA: &[&str] =
    &["169.254.169.254", "fd00:ec2::254", "169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    /// `scheme://host[:port]` each.
    hosts: Arc<[Arc<str>]>,
    /// Through the company's proxy, where there is one.
    out: Client,
    /// For what is on this machine.
    here: Client,
}

/// A transport with the time that one request may take until its answer's head.
#[derive(Debug)]
struct Timed(Transport, Option<Duration>);

impl Transport {
    pub(super) fn new(hosts: Vec<Arc<str>>, trust: &Trust, outbound: &Outbound) -> Result<Self, String> {
        let out = network::client(outbound, trust, &BTreeMap::new(), None)?;
        let here = network::client(&Outbound::default(), trust, &BTreeMap::new(), None)?;
        Ok(Self { hosts: hosts.into(), out, here })
    }

    /// The client that may carry to a URL. Metadata services are read (`GET`, and `PUT` for EC2's own token); what is
    /// posted is meant for AWS, and goes to the hosts of the configuration alone.
    fn way(&self, method: &str, url: &str) -> Result<&Client, Told> {
        let uri = url.parse::<Uri>().ok();
        let parts = uri.as_ref().and_then(|uri| Some((uri.scheme_str()?, uri.authority()?, uri.host()?)));
        let Some((scheme, authority, host)) = parts else {
            return Err(Told("a request that has no host was not sent".into()));
        };
        let own = format!("{scheme}://{authority}").to_ascii_lowercase();
        let own = own.strip_suffix(if scheme == "https" { ":443" } else { ":80" }).unwrap_or(&own);
        let here = is_here(host);
        if self.hosts.iter().any(|known| **known == *own) {
            return Ok(if here { &self.here } else { &self.out });
        }
        if here && method != "POST" && !authority.as_str().contains('@') {
            return Ok(&self.here);
        }
        Err(Told(format!(
            "the environment or a profile of ~/.aws leads to {host}, and a request goes only to the hosts of the \
             vault's section"
        )))
    }

    async fn carry(self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let client =
            self.way(request.method(), request.uri()).map_err(|told| ConnectorError::user(told.into()))?;
        let method = Method::from_bytes(request.method().as_bytes());
        let method = method.map_err(|error| ConnectorError::user(error.into()))?;
        let mut builder = client.request(method, request.uri());
        for (name, value) in request.headers() {
            builder = builder.header(name, value);
        }
        if let Some(body) = request.body().bytes().filter(|body| !body.is_empty()) {
            builder = builder.body(Bytes::from_owner(Zeroizing::new(body.to_vec())));
        }
        let answer = builder.send().await.map_err(|error| silent(network::silence(&error)))?;
        let status = StatusCode::try_from(answer.status().as_u16());
        let status = status.map_err(|error| ConnectorError::other(error.into(), None))?;
        let headers = answer.headers().clone();
        let body = Bytes::from_owner(network::body(answer, ANSWER).await.map_err(silent)?);
        let mut response: HttpResponse = Response::new(status, body).map(Into::into);
        for (name, value) in &headers {
            if let Ok(value) = value.to_str() {
                let _ = response.headers_mut().try_append(name.as_str().to_owned(), value.to_owned());
            }
        }
        Ok(response)
    }
}

/// This machine itself, or a metadata service beside it.
fn is_here(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let known = |address: IpAddr| METADATA.iter().any(|known| known.parse() == Ok(address));
    host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback() || known(address))
}

/// The SDK may try it once more.
fn silent(error: VaultError) -> ConnectorError {
    let (VaultError::Unavailable(why) | VaultError::Denied(why) | VaultError::Unusable(why)) = error;
    ConnectorError::io(Told(why.to_string()).into())
}

impl HttpClient for Transport {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let limit = settings.read_timeout().map(|read| read + settings.connect_timeout().unwrap_or_default());
        SharedHttpConnector::new(Timed(self.clone(), limit))
    }
}

impl HttpConnector for Timed {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let carried = self.0.clone().carry(request);
        let Some(limit) = self.1 else { return HttpConnectorFuture::new(carried) };
        HttpConnectorFuture::new(async move {
            match tokio::time::timeout(limit, carried).await {
                Ok(answer) => answer,
                Err(_) => Err(ConnectorError::timeout(Told("it took too long".into()).into())),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_goes_to_the_hosts_of_the_configuration_and_to_this_machine_alone() {
        let hosts = vec![
            "https://secretsmanager.eu-west-1.amazonaws.com".into(),
            "https://sts.corp.example:8443".into(),
            "http://127.0.0.1:5000".into(),
        ];
        let transport = Transport::new(hosts, &Trust::default(), &Outbound::default()).unwrap();
        for url in [
            "https://secretsmanager.eu-west-1.amazonaws.com/",
            "https://secretsmanager.eu-west-1.amazonaws.com:443/",
            "https://SECRETSMANAGER.eu-west-1.amazonaws.com",
            "https://sts.corp.example:8443/",
            "http://127.0.0.1:5000/",
            "http://169.254.169.254/latest/api/token",
            "http://169.254.170.2/v2/credentials/x",
            "http://169.254.170.23/v1/credentials",
            "http://[fd00:ec2::23]/v1/credentials",
            "http://localhost:9911/",
            "http://[::1]:9911/",
        ] {
            let method = if url.starts_with("https:") { "POST" } else { "GET" };
            assert!(transport.way(method, url).is_ok(), "{url}");
        }
        for url in [
            "https://secretsmanager.eu-west-2.amazonaws.com/",
            "http://secretsmanager.eu-west-1.amazonaws.com/",
            "https://secretsmanager.eu-west-1.amazonaws.com:8443/",
            "https://secretsmanager.eu-west-1.amazonaws.com@elsewhere.example/",
            "https://secretsmanager.eu-west-1.amazonaws.com.elsewhere.example/",
            "https://sts.corp.example/",
            "https://elsewhere.example/creds",
            "http://169.254.169.253/",
            "http://10.0.0.1/",
            "http://127.0.0.1@elsewhere.example/",
            "/no/host",
        ] {
            assert!(transport.way("GET", url).is_err() && transport.way("POST", url).is_err(), "{url}");
        }
        assert!(transport.way("POST", "http://127.0.0.1:5000/").is_ok());
        for url in ["http://127.0.0.1:5001/", "http://169.254.169.254/", "http://localhost:9911/"] {
            assert!(transport.way("POST", url).is_err(), "{url}");
        }
    }
}
