#ifndef MK_BASE_CLOCK_H
#define MK_BASE_CLOCK_H

double mk_now(void); /* seconds since some moment, of a clock that is never set back */

#endif
