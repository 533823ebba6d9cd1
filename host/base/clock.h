/* The time, for measuring how long something takes. */
#ifndef PL_BASE_CLOCK_H
#define PL_BASE_CLOCK_H

/* Milliseconds on a clock that only goes forward, from a moment of its own. */
double pl_now_ms(void);

#endif
