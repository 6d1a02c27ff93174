# moonkiln: `make help` says what there is.
BUILD ?= build
CC ?= gcc
CXX ?= g++
PKG = lua5.4 jansson libxxhash sentencepiece libutf8proc
# OpenBLAS's OpenMP build: it shares its threads with the CPU backend's own loops, where the default build fights them.
MULTIARCH := $(shell $(CC) -print-multiarch 2>/dev/null)
OPENBLAS ?= /usr/lib/$(MULTIARCH)/openblas-openmp/libopenblas.a
CPPFLAGS += -I. -D_GNU_SOURCE $(shell pkg-config --cflags $(PKG) 2>/dev/null) -I/usr/include/$(MULTIARCH)/openblas-openmp
CFLAGS += -std=gnu11 -Wall -Wextra -Wshadow -Werror -fopenmp -MMD -MP -fvisibility=hidden
CXXFLAGS += -std=c++17 -Wall -Wextra -Werror -MMD -MP
# Static archives where the system has them, so that the program runs on other systems of the same age.
archive = $(if $(findstring /,$(shell $(CC) -print-file-name=lib$(1).a)),-l:lib$(1).a,-l$(1))
LDLIBS += $(foreach l,lua5.4 jansson xxhash utf8proc,$(call archive,$(l))) $(OPENBLAS) $(call archive,gomp) -lsentencepiece -lstdc++ -ldl -lpthread -lm
LDFLAGS += -Wl,--as-needed -Wl,-rpath,'$$ORIGIN/lib'
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
CFLAGS += -fsanitize=undefined -fno-sanitize-recover=undefined -Wno-format-truncation -Wno-format-overflow
LDFLAGS += -fsanitize=undefined
endif

LIB_C := $(filter-out runtime/cli/%,$(shell find runtime codegen -name '*.c' | LC_ALL=C sort))
LIB_CXX := $(shell find runtime -name '*.cc' | LC_ALL=C sort)
CLI_C := $(sort $(wildcard runtime/cli/*.c))
LIB_O := $(LIB_C:%.c=$(BUILD)/obj/%.o) $(LIB_CXX:%.cc=$(BUILD)/obj/%.o)
CLI_O := $(CLI_C:%.c=$(BUILD)/obj/%.o)
UNIT := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(sort $(wildcard tests/unit/test_*.c)))

help: ## this text
	@echo "make run        install what is missing, build, make PROMPT's video with the small model that comes along (SEED=, OUT=)"
	@echo "make check      install what is missing, build, run every test that needs no GPU"
	@echo "make check-gpu  on a machine with a GPU: every generated kernel, and a whole clip, against the CPU backend"
	@echo "make bundle     build/bundle.tar.xz: both programs, to carry to a machine with only CUDA"
	@echo "make all        build build/moonkiln and build/libmoonkiln.a"
	@echo "make bench      time a diffusion step of Wan2.2 A14B with made-up weights (GPU)"
	@echo "make profile    the same against the card's measured limits, with a page in build/profile.html (GPU)"
	@echo "make format     clang-format over all C sources"
	@echo "make lint       clang-format check, cppcheck, shellcheck, luacheck, folder rules"
	@echo "make install    PREFIX=/usr/local: program, library, header, scripts and templates"
	@echo "make clean      remove the build folder"
	@echo "options: DEBUG=1 ASAN=1 UBSAN=1 BUILD=folder PREFIX=folder"

all: $(BUILD)/moonkiln
unit: $(UNIT) $(BUILD)/gpu/gpu_check $(BUILD)/gpu/lt_check  # the last two need a GPU to run, not to build

# ---- the two commands
PROMPT ?= a red ball rolls to the right
SEED ?= 0
OUT ?= $(BUILD)/video.mp4
run: setup
	@$(MAKE) --no-print-directory all
	$(BUILD)/moonkiln generate scripts/pocket/model --prompt "$(PROMPT)" --seed $(SEED) --tune-budget 0 \
	  --out $(OUT) --sheet $(basename $(OUT)).png

check: setup
	@$(MAKE) --no-print-directory all unit
	@tests/run.sh $(BUILD) $(ONLY)

# GRAPHS: files instead of all of tests/gpu/graphs. CHECKER: e.g. "compute-sanitizer --target-processes all". Without these two,
# what users do is tried, too.
check-gpu: export MOONKILN_DATA = .
check-gpu: export OMP_WAIT_POLICY = passive # on a busy machine spinning threads take the cores from those that work
check-gpu: $(BUILD)/moonkiln $(BUILD)/gpu/lt_check $(BUILD)/gpu/gpu_check $(BUILD)/gpu/random
	@bad=0; $(CHECKER) $(BUILD)/gpu/lt_check || bad=1; $(CHECKER) $(BUILD)/gpu/gpu_check $(GRAPHS) || bad=1; \
	  $(if $(GRAPHS)$(CHECKER),,tests/gpu/pocket_check.sh $(BUILD)/moonkiln || bad=1; BUILD=$(BUILD) tests/gpu/commands.sh || bad=1;) exit $$bad
$(BUILD)/gpu/random: tests/fuzz/random_graph.lua $(BUILD)/unit/test_random_graphs
	rm -rf $@
	FUZZ_WRITE=$@ FUZZ_GRAPHS=1-63 $(BUILD)/unit/test_random_graphs

# LATENT: frames, height and width of the latent; 21 60 104 is 81 frames of 832x480 (32,760 tokens).
LATENT ?= 21 60 104
A14B = {"dim":5120,"num_heads":40,"ffn_dim":13824,"num_layers":40,"in_dim":16,"out_dim":16,"freq_dim":256,"text_len":512}
bench: $(BUILD)/moonkiln
	MOONKILN_DATA=. $(BUILD)/moonkiln bench scripts/models/wan_dit.lua --synthetic 1 --set 'config=$(A14B)' \
	  --set frames=$(word 1,$(LATENT)) --set height=$(word 2,$(LATENT)) --set width=$(word 3,$(LATENT)) --set steps=40

SIZE ?= 832x480
FRAMES ?= 81
profile: $(BUILD)/moonkiln
	MOONKILN_DATA=. $(BUILD)/moonkiln profile a14b --size $(SIZE) --frames $(FRAMES) --html $(BUILD)/profile.html

# Programs and the shared libraries that others may lack, to be unpacked in a checkout on a machine with a GPU and no compiler.
bundle: $(BUILD)/moonkiln $(BUILD)/gpu/gpu_check $(BUILD)/gpu/lt_check
	@rm -rf $(BUILD)/bundle && mkdir -p $(BUILD)/bundle/lib
	strip -o $(BUILD)/bundle/moonkiln $(BUILD)/moonkiln
	strip -o $(BUILD)/bundle/gpu_check $(BUILD)/gpu/gpu_check
	strip -o $(BUILD)/bundle/lt_check $(BUILD)/gpu/lt_check
	ldd $(BUILD)/moonkiln | awk '/libsentencepiece/ { print $$3 }' | xargs -I{} cp -L {} $(BUILD)/bundle/lib
	tar -C $(BUILD) -cJf $(BUILD)/bundle.tar.xz bundle

setup:
	@scripts/setup.sh

format:
	clang-format -i $(shell git ls-files '*.c' '*.h' '*.cc')

lint:
	clang-format --dry-run --Werror $(shell git ls-files '*.c' '*.h' '*.cc')
	cppcheck --quiet --std=c11 --error-exitcode=1 --inline-suppr --enable=warning,portability -I. runtime codegen
	shellcheck $(shell git ls-files '*.sh' '*.bats' '*.bash' .ci/run)
	luacheck -q scripts tests templates
	scripts/check_layers.sh

PREFIX ?= /usr/local
install: $(BUILD)/moonkiln
	install -d $(addprefix $(DESTDIR)$(PREFIX)/,bin lib include share/moonkiln/scripts/models share/moonkiln/scripts/tuning share/moonkiln/templates)
	install $(BUILD)/moonkiln $(DESTDIR)$(PREFIX)/bin
	install -m 644 $(BUILD)/libmoonkiln.a $(DESTDIR)$(PREFIX)/lib
	install -m 644 runtime/moonkiln.h $(DESTDIR)$(PREFIX)/include
	install -m 644 scripts/models/*.lua $(DESTDIR)$(PREFIX)/share/moonkiln/scripts/models
	install -m 644 scripts/tuning/* $(DESTDIR)$(PREFIX)/share/moonkiln/scripts/tuning
	install -m 644 templates/* $(DESTDIR)$(PREFIX)/share/moonkiln/templates

clean:
	rm -rf $(BUILD)

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -c $< -o $@
$(BUILD)/obj/%.o: %.cc
	@mkdir -p $(@D)
	$(CXX) $(CPPFLAGS) $(CXXFLAGS) -c $< -o $@
$(BUILD)/obj/runtime/cli/profile_html.o: runtime/cli/profile_page.html
$(BUILD)/obj/runtime/cli/sweep_html.o: runtime/cli/sweep_page.html
$(BUILD)/libmoonkiln.a: $(LIB_O)
	@rm -f $@
	ar rcs $@ $^
$(BUILD)/moonkiln: $(CLI_O) $(BUILD)/libmoonkiln.a
	$(CC) $(LDFLAGS) $^ $(LDLIBS) -o $@
$(BUILD)/unit/%: $(BUILD)/obj/tests/unit/%.o $(BUILD)/libmoonkiln.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) $^ $(LDLIBS) -lcmocka -o $@
$(BUILD)/gpu/%: $(BUILD)/obj/tests/gpu/%.o $(BUILD)/libmoonkiln.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) $^ $(LDLIBS) -o $@

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
.PHONY: help all unit run check setup format lint clean check-gpu bundle bench profile install
.SECONDARY:
