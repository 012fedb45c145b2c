# An init that says that user space is reached, and then waits to be ended. It says it by one letter on the kernel's console:
# each byte there costs exits from the VM.
    .globl _start
_start:
    mov $133, %eax          # mknod("/dev/kmsg", S_IFCHR | 0600, 1:11)
    lea node(%rip), %rdi
    mov $0020600, %esi
    mov $0x10b, %edx
    syscall
    mov $2, %eax            # open("/dev/kmsg", O_WRONLY)
    lea node(%rip), %rdi
    mov $1, %esi
    xor %edx, %edx
    syscall
    mov %eax, %edi          # write(it, "<0>...")
    mov $1, %eax
    lea text(%rip), %rsi
    mov $length, %edx
    syscall
wait:
    mov $34, %eax           # pause()
    syscall
    jmp wait

node:
    .asciz "/dev/kmsg"
text:
    .ascii "<0>U\n"
    .equ length, . - text
