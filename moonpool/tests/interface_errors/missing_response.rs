moonpool::define_interface! {
    pub Clock, id 7, { now: () }
}

fn main() {}
