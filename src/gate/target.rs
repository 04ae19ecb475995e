//! Where a request is going.
use http::uri::PathAndQuery;

/// A host of Azure DevOps, from the closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// `dev.azure.com`
    DevAzure,
}

impl Host {
    /// The name in lower case, as `Host` and certificates have it.
    #[must_use]
    pub fn authority(self) -> &'static str {
        match self {
            Self::DevAzure => "dev.azure.com",
        }
    }

    /// The host of a name in lower case, if it is on the list.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        (name == "dev.azure.com").then_some(Self::DevAzure)
    }
}

/// Where a request is going.
#[derive(Clone, Debug)]
pub struct Target {
    path_and_query: PathAndQuery,
}

impl Target {
    /// The host.
    #[must_use]
    pub fn host(&self) -> Host {
        Host::DevAzure
    }
    /// The organisation.
    #[must_use]
    pub fn organization(&self) -> &str {
        todo!()
    }
    /// What is forwarded, byte by byte.
    #[must_use]
    pub fn path_and_query(&self) -> &PathAndQuery {
        &self.path_and_query
    }
}
