"""Parts of methods: teachers, schedules, predictors, heads, sparse convolution. All are part of `mimbench.api`."""
