"""Commands that measure what the tests only touch: full length, real time, whole tables."""
