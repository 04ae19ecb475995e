//! Where a request is going.
use http::uri::PathAndQuery;

/// A host of Azure DevOps, from the closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// `dev.azure.com`
    DevAzure,
    /// `pkgs.dev.azure.com`
    Packages,
}

impl Host {
    /// By its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "dev.azure.com" => Some(Self::DevAzure),
            "pkgs.dev.azure.com" => Some(Self::Packages),
            _ => None,
        }
    }
    /// Its name.
    #[must_use]
    pub fn authority(self) -> &'static str {
        match self {
            Self::DevAzure => "dev.azure.com",
            Self::Packages => "pkgs.dev.azure.com",
        }
    }
}

/// Where a request is going.
#[derive(Clone, Debug)]
pub struct Target {
    path_and_query: PathAndQuery,
    pub(crate) host: Host,
    pub(crate) segments: Vec<String>,
}

impl Target {
    /// What is forwarded, byte by byte.
    #[must_use]
    pub fn path_and_query(&self) -> &PathAndQuery {
        &self.path_and_query
    }
    /// The host.
    #[must_use]
    pub fn host(&self) -> Host {
        self.host
    }
    /// Lower case.
    #[must_use]
    pub fn organization(&self) -> &str {
        self.segments.first().map_or("", |s| s)
    }
    /// Lower case.
    #[must_use]
    pub fn project(&self) -> Option<&str> {
        self.segments.get(1).map(String::as_str).filter(|s| !s.starts_with('_'))
    }
    /// Decoded, lower-cased segments in normal form.
    pub fn canonical(&self) -> impl Iterator<Item = &str> + Clone {
        self.segments.iter().map(String::as_str)
    }
    pub(crate) fn stub(target: &str) -> Self {
        let path = target.split('?').next().unwrap_or("");
        let path = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
        let lower =
            |c: char| if c.to_lowercase().count() == 1 { c.to_lowercase().next().unwrap_or(c) } else { c };
        let path: String = path.chars().map(lower).collect();
        let mut segments: Vec<String> =
            path.split('/').filter(|s| !s.is_empty()).map(str::to_owned).collect();
        let mut host = Host::DevAzure;
        if let Some(named) = segments.first().and_then(|s| Host::parse(s)) {
            host = named;
            segments.remove(0);
        }
        if segments.get(1).is_some_and(|s| s == "defaultcollection") {
            segments.remove(1);
        }
        if segments.get(1).is_some_and(|s| s == "_git")
            && let Some(repository) = segments.get(2).cloned()
        {
            segments.insert(1, repository);
        }
        if segments.get(1).is_some_and(|s| s == "_apis")
            && segments.get(4).is_some_and(|s| s == "repositories")
            && segments.get(3).is_some_and(|s| s != "recyclebin")
        {
            let project = segments.remove(3);
            segments.insert(1, project);
        }
        Self { path_and_query: target.parse().unwrap_or(PathAndQuery::from_static("/")), host, segments }
    }
}
