@0xb6a3c1d0e5f72941;

struct Sample {
  id @0 :UInt64;
  low @1 :Float64;
  high @2 :Float64;
  name @3 :Text;
}

interface Echo {
  echo @0 (sample :Sample) -> (sample :Sample);
  large @1 (bytes :Data) -> (bytes :Data);
}
