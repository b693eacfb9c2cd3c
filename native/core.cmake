# What the core is made of, for the module and for the checks: core_sources, and the choice of SPARSEARRAY_OS.
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  set(SPARSEARRAY_OS linux CACHE STRING "System calls to build on: linux or posix")
else()
  set(SPARSEARRAY_OS posix CACHE STRING "System calls to build on: linux or posix")
endif()

set(core_sources)
foreach(part reservation mapping residency table pins files many_files access spans search boxes pool ring
        extents guard damage kept flush snapshot sums digging os_${SPARSEARRAY_OS})
  list(APPEND core_sources ${CMAKE_CURRENT_LIST_DIR}/${part}.cpp)
endforeach()
# Loops that are to become vectors.
set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/sums.cpp PROPERTIES COMPILE_OPTIONS -O3)
