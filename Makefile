# moonkiln: `make help` says what there is.
BUILD ?= build
CC ?= gcc
CXX ?= g++
PKG = lua5.4 jansson libxxhash sentencepiece openblas libutf8proc
CPPFLAGS += -I. -D_GNU_SOURCE $(shell pkg-config --cflags $(PKG) 2>/dev/null)
CFLAGS += -std=gnu11 -Wall -Wextra -Wshadow -Werror -fopenmp -MMD -MP -fvisibility=hidden
CXXFLAGS += -std=c++17 -Wall -Wextra -Werror -MMD -MP
LDLIBS += $(LUA_LIB) $(shell pkg-config --libs jansson libxxhash sentencepiece openblas libutf8proc 2>/dev/null) -lstdc++ -ldl -lpthread -lm
LUA_LIB ?= -l:liblua5.4.a
LDFLAGS += -fopenmp
ifeq ($(DEBUG),1)
CFLAGS += -O1 -g
CXXFLAGS += -O1 -g
else
CFLAGS += -O2 -g1
CXXFLAGS += -O2
endif
ifeq ($(ASAN),1)
CFLAGS += -fsanitize=address
CXXFLAGS += -fsanitize=address
LDFLAGS += -fsanitize=address
endif
ifeq ($(UBSAN),1)
CFLAGS += -fsanitize=undefined -fno-sanitize-recover=undefined
LDFLAGS += -fsanitize=undefined
endif

LIB_C := $(filter-out runtime/cli/%,$(shell find runtime codegen -name '*.c' | LC_ALL=C sort))
LIB_CXX := $(shell find runtime -name '*.cc' | LC_ALL=C sort)
CLI_C := $(sort $(wildcard runtime/cli/*.c))
LIB_O := $(LIB_C:%.c=$(BUILD)/obj/%.o) $(LIB_CXX:%.cc=$(BUILD)/obj/%.o)
CLI_O := $(CLI_C:%.c=$(BUILD)/obj/%.o)
UNIT := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(sort $(wildcard tests/unit/test_*.c)))

all: $(BUILD)/moonkiln
unit: $(UNIT)

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -c $< -o $@
$(BUILD)/obj/%.o: %.cc
	@mkdir -p $(@D)
	$(CXX) $(CPPFLAGS) $(CXXFLAGS) -c $< -o $@
$(BUILD)/libmoonkiln.a: $(LIB_O)
	@rm -f $@
	ar rcs $@ $^
$(BUILD)/moonkiln: $(CLI_O) $(BUILD)/libmoonkiln.a
	$(CC) $(LDFLAGS) $^ $(LDLIBS) -o $@
$(BUILD)/unit/%: $(BUILD)/obj/tests/unit/%.o $(BUILD)/libmoonkiln.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) $^ $(LDLIBS) -lcmocka -o $@

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
.PHONY: all unit
.SECONDARY:
