"""Commands that measure at full length what the tests only run at their smallest size."""
