moonpool::define_interface! {
    pub Nothing, id 7, {}
}

fn main() {}
