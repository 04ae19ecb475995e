//! E0451: a recorded intent is made by the audit alone.
use patgate::audit::Recorded;

fn forge<T>() -> T {
    unimplemented!("this is only compiled")
}

fn main() {
    let _ = Recorded { known: forge(), chosen: forge(), shares: forge() };
}
